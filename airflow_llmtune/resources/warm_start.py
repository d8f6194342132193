"""A narrower search space around a point that is known to be good.

Katib has no way to ask for a given trial first, so the point itself is not tried again: the space is centred on it,
where `tpe` and `random` then draw all their trials and `cmaes` its first one. What the point is worth on the new data
is told by evaluating its adapter, not by a trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.meta import finite, text_of
from airflow_llmtune.resources.search_space import Parameter, SearchSpace

if TYPE_CHECKING:
    from airflow_llmtune.resources.experiment import ExperimentSpec
    from airflow_llmtune.resources.problems import Problems

__all__ = ["CHAMPION", "Narrowed", "check", "narrow", "start_from"]

# What the argument calls the model's best version so far.
CHAMPION = "champion"

# Digits of a bound; more would only make the manifest hard to read.
_DIGITS = 6


class Narrowed(NamedTuple):
    space: SearchSpace
    notes: tuple[str, ...]


def check(
    start: Any, scale: Any, space: SearchSpace, problems: Problems, *, was_given: bool, remembers: bool
) -> float | None:
    """
    Return the scale, when it is good.

    :param was_given: before anything was rendered.
    :param remembers: there is an asset that knows the champion.
    """
    number = problems.number("warm_start_scale", scale)
    if number is not None and not 0 < number <= 1:
        problems.add("warm_start_scale", scale, "is not above 0 and at most 1", "give such as 0.25")
    if start is None and was_given:
        fix = "check that the upstream task returns that key"
        problems.add("warm_start", start, "was given and has no value now", fix)
    elif not isinstance(start, str | Mapping | None):
        problems.add("warm_start", start, "is no starting point", 'give "champion", parameters, or a name')
    elif isinstance(start, Mapping) and start and space.names and not set(start) & set(space.names):
        fix = 'give the parameters themselves, such as `tune.output["parameters"]`'
        problems.add("warm_start", list(start), "has none of the parameters that are searched", fix)
    elif isinstance(start, str) and start != CHAMPION:
        problems.name("warm_start", start, 'give "champion", parameters, or the name of an Experiment')
    if start == CHAMPION and not remembers:
        fix = 'give `model_asset=Asset("my-model")`'
        problems.add("warm_start", start, "needs the asset that remembers the champion", fix)
    return number


def narrow(space: SearchSpace, point: Mapping[str, Any], scale: float) -> Narrowed:
    """
    Keep ``scale`` of each range around the point, inside the author's bounds; ``notes`` tell what could not be done.

    A window that would leave the bounds is moved, not cut, so that a champion near a bound is searched around as far as
    any other. The scale is always that of the author's range: a space narrowed every week does not shrink to a point.
    """
    notes: list[str] = []
    narrowed = []
    for parameter in space.parameters:
        if parameter.name not in point:
            notes.append(f"`{parameter.name}` keeps its whole range: the starting point does not have it")
            narrowed.append(parameter)
        elif parameter.is_range:
            narrowed.append(_narrow_range(parameter, point[parameter.name], scale, notes))
        else:
            narrowed.append(_narrow_list(parameter, point[parameter.name], notes))
    return Narrowed(SearchSpace(tuple(narrowed)), tuple(notes))


def start_from(spec: ExperimentSpec, point: Mapping[str, Any], scale: float) -> tuple[ExperimentSpec, tuple[str, ...]]:
    """The same search in the narrowed space, and what is to be told of it."""
    # Hyperband gives each trial its share of this one; it is no choice.
    resource = spec.algorithm_settings.get("resource_name") if spec.algorithm_name == "hyperband" else None
    narrowed = narrow(spec.space, {name: value for name, value in point.items() if name != resource}, scale)
    trials = spec.max_trial_count
    if spec.algorithm_name == "grid" and (size := narrowed.space.size()) is not None:
        trials = min(trials, size)
    narrower = spec._replace(
        space=narrowed.space,
        max_trial_count=trials,
        parallel_trial_count=min(spec.parallel_trial_count, trials),
        max_failed_trial_count=min(spec.max_failed_trial_count, trials),
    )
    return narrower, narrowed.notes


# --- ranges -------------------------------------------------------------------------------------------------


def _narrow_range(parameter: Parameter, value: Any, scale: float, notes: list[str]) -> Parameter:
    number = finite(value)
    if number is None:
        notes.append(f"`{parameter.name}` keeps its whole range: {value!r} is no number")
        return parameter
    centre = min(max(number, parameter.min), parameter.max)
    if centre != number:
        bounds = f"{text_of(parameter.min)} to {text_of(parameter.max)}"
        notes.append(f"`{parameter.name}`={text_of(number)} lies outside {bounds}; {text_of(centre)} is taken")
    low, high = _window(parameter, centre, scale)
    if parameter.type == "int" or parameter.step is not None:
        low, high = _on_grid(parameter, centre, low, high)
    else:
        low, high = (_rounded(parameter, bound) for bound in (low, high))
    return parameter._replace(min=low, max=high) if low < high else parameter


def _window(parameter: Parameter, centre: float, scale: float) -> tuple[float, float]:
    # Where the order of magnitude is searched, the window spans orders of magnitude.
    logarithmic = parameter.distribution in ("logUniform", "logNormal")
    low, high, middle = (
        math.log(bound) if logarithmic else float(bound) for bound in (parameter.min, parameter.max, centre)
    )
    width = min(scale, 1.0) * (high - low)
    start = min(max(middle - width / 2, low), high - width)
    found = (start, start + width)
    return (math.exp(found[0]), math.exp(found[1])) if logarithmic else found


def _on_grid(parameter: Parameter, centre: float, low: float, high: float) -> tuple[int | float, int | float]:
    """Widen the window to the author's own grid points, and to at least one beside the centre."""
    step = 1 if parameter.step is None else parameter.step
    count = math.floor((parameter.max - parameter.min) / step + 1e-9)

    def index(bound: float) -> float:
        return (bound - parameter.min) / step

    first = max(0, min(math.floor(index(low) + 1e-9), math.ceil(index(centre) - 1e-9) - 1))
    last = min(count, max(math.ceil(index(high) - 1e-9), math.floor(index(centre) + 1e-9) + 1))
    ends = (parameter.min + first * step, parameter.min + last * step)
    return ends if parameter.type == "int" else (_grid_point(parameter, ends[0]), _grid_point(parameter, ends[1]))


def _grid_point(parameter: Parameter, point: float) -> float:
    """Write 0.30000000000000004 as 0.3, but leave 2/3 what it is: another 1/3 has to fit between it and 1."""
    short = _rounded(parameter, point)
    return short if math.isclose(short, point, rel_tol=1e-12, abs_tol=1e-12) else min(point, float(parameter.max))


def _rounded(parameter: Parameter, bound: float) -> float:
    short = float(f"{bound:.{_DIGITS}g}")
    return float(min(max(short, parameter.min), parameter.max))


# --- lists --------------------------------------------------------------------------------------------------


def _narrow_list(parameter: Parameter, value: Any, notes: list[str]) -> Parameter:
    """Keep the value and its neighbours; values without an order have none, so all of them stay."""
    numbers = [item for item in parameter.values if isinstance(item, int | float) and not isinstance(item, bool)]
    number = finite(value)
    if len(numbers) < len(parameter.values) or number is None:
        notes.append(f"`{parameter.name}` keeps all its values: they have no order")
        return parameter
    ordered = sorted(numbers)
    near = min(range(len(ordered)), key=lambda position: abs(ordered[position] - number))
    if ordered[near] != number:
        notes.append(f"`{parameter.name}`={text_of(number)} is not listed; {text_of(ordered[near])} is taken")
    kept = ordered[max(near - 1, 0) : near + 2]
    return parameter._replace(values=tuple(item for item in parameter.values if item in kept))
