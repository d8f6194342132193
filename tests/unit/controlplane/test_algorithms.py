"""What holds for every algorithm, and what for the simple ones; hyperband, pbt and Bayes have files of their own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES, REFUSED_ALGORITHMS, load
from airflow_llmtune.controlplane.algorithms.request import PastTrial, TrialOutcome
from airflow_llmtune.controlplane.algorithms.search_space import Choice, InvalidSettingsError, Parameter, parse
from searches import choice, double, integer, points, request

NEEDED = {
    "hyperband": {"r_l": "9", "resource_name": "budget"},
    "pbt": {"suggestion_trial_dir": "/ckpt", "n_population": "5", "truncation_threshold": "0.2"},
}
"""Settings without which an algorithm does not start."""


FINITE = [
    double("dropout", "0.0", "0.5", step="0.1"),
    integer("rank", "4", "64", step="4"),
    choice("optimizer", "adamw", "sgd"),
    choice("batch", "8", "16", "32", type_="discrete"),
    integer("budget", "1", "9"),
]


STEPPED = [
    {**one, "feasibleSpace": {"step": "1", **one["feasibleSpace"]}} if "min" in one["feasibleSpace"] else one
    for one in FINITE
]


UNBOUNDED = ("random", "tpe")
"""Those that draw normal distributions beyond their bounds, as Katib's do."""


def seeded(name: str, seed: int) -> dict[str, str]:
    return {**NEEDED.get(name, {}), "random_state": str(seed)}


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_every_value_is_a_text_inside_its_feasible_space(name: str) -> None:
    drawn = points(name, request(STEPPED, settings=NEEDED.get(name, {})), 9)
    assert len(drawn) == 9
    for point in drawn:
        assert point["dropout"] in {"0.0", "0.1", "0.2", "0.3", "0.4", "0.5"}
        assert int(point["rank"]) in range(4, 65, 4)
        assert point["optimizer"] in {"adamw", "sgd"}
        assert point["batch"] in {"8", "16", "32"}
        assert int(point["budget"]) in range(1, 10)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_the_same_request_gives_the_same_points(name: str) -> None:
    for settings_ in (NEEDED.get(name, {}), seeded(name, 7)):
        asked = request(STEPPED, settings=settings_)
        load(name).validate(asked)
        assert points(name, asked, 3) == points(name, asked, 3)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_other_seeds_give_other_points(name: str) -> None:
    first = points(name, request(STEPPED, settings=seeded(name, 1)), 3)
    assert first != points(name, request(STEPPED, settings=seeded(name, 2)), 3)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_batching_of_calls_does_not_change_the_search(name: str) -> None:
    known = NEEDED.get(name, {})
    together = points(name, request(STEPPED, settings=known), 7)
    past: list[PastTrial] = []
    for count in (1, 2, 4):
        past += [PastTrial(one) for one in points(name, request(STEPPED, settings=known, past=past), count)]
    assert [trial.assignments for trial in past] == together


BOUND = st.sampled_from(["1e-4", "0.01", "0.5", "1", "2", "7.5", "64"])


@st.composite
def numeric(draw: st.DrawFn, name: str, *, stepped: bool) -> dict[str, Any]:
    is_int = draw(st.booleans())
    low, width = draw(BOUND), draw(BOUND)
    if is_int:
        low, width = str(int(float(low)) + 1), str(int(float(width)) + 1)
    more = {"distribution": draw(st.sampled_from(["uniform", "logUniform", "normal", "logNormal"]))}
    if stepped or draw(st.booleans()):
        share = draw(st.sampled_from(["0.1", "0.34", "0.6", "1"]))
        more["step"] = (
            str(max(int(Decimal(share) * Decimal(width)), 1)) if is_int else str(Decimal(share) * Decimal(width))
        )
    high = str(Decimal(low) + Decimal(width))
    return (integer if is_int else double)(name, low, high, **more)


@st.composite
def spaces(draw: st.DrawFn, *, stepped: bool) -> list[dict[str, Any]]:
    """Two numeric parameters at least: ``cmaes`` takes no less."""
    found = [draw(numeric(name, stepped=stepped)) for name in "abc"[: draw(st.integers(2, 3))]]
    if draw(st.booleans()):
        found.append(choice("kind", *"uvw"[: draw(st.integers(1, 3))]))
    return found


def is_inside(parameter: Parameter, text: str, *, bounded: bool) -> bool:
    if isinstance(parameter, Choice):
        return text in parameter.options
    number = Decimal(str(int(text)) if parameter.is_int else text)
    is_free = parameter.is_normal and not bounded
    within = is_free or float(parameter.low) <= float(number) * (1 + 1e-12) <= float(parameter.high) * (1 + 2e-12)
    if parameter.step is None or not within:
        return within
    steps = (number - parameter.low) / parameter.step
    return abs(steps - round(steps)) < Decimal("1e-9")


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_any_space_is_searched_inside_its_bounds_and_on_its_steps(name: str) -> None:
    needs_steps = name in {"grid", "pbt"}

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(
        spaces(stepped=needs_steps),
        st.lists(st.sampled_from(["complete", "failed", "running"]), min_size=5, max_size=5),
    )
    def check(parameters: list[dict[str, Any]], outcomes: list[TrialOutcome]) -> None:
        known = dict(NEEDED.get(name, {}))
        if name == "hyperband":
            known["resource_name"] = "a"
        if name == "bayesianoptimization":
            known["n_initial_points"] = "2"
        asked = request(parameters, settings=known)
        load(name).validate(asked)
        first = load(name).suggest(asked, 5).suggested
        past = [
            PastTrial(
                dict(one.assignments), outcome, index / 3 if outcome == "complete" else None, one.name, one.labels
            )
            for index, (one, outcome) in enumerate(zip(first, outcomes, strict=False))
        ]
        more = load(name).suggest(request(parameters, settings=known, past=past), 4).suggested
        assert len(more) <= 4
        for one in [*first, *more]:
            assert one.assignments.keys() == {parameter["name"] for parameter in parameters}
            for parameter in parse(parameters):
                if name != "hyperband" or parameter.name != "a":
                    text = one.assignments[parameter.name]
                    assert is_inside(parameter, text, bounded=name not in UNBOUNDED), (parameter, text)

    check()


@pytest.mark.parametrize("name", ["random", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol"])
@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
@pytest.mark.parametrize("make", [double, integer])
def test_all_distributions_can_be_drawn_from_again_and_again(name: str, distribution: str, make: Any) -> None:
    parameters = [make("x", "1", "100", distribution=distribution), double("y", "0", "1")]
    past: list[PastTrial] = []
    for index in range(12):
        (point,) = points(name, request(parameters, past=past), 1)
        past.append(PastTrial(point, "complete", float(index)))
    values = {float(trial.assignments["x"]) for trial in past}
    assert len(values) > 6
    if name not in UNBOUNDED or not distribution.endswith("ormal"):
        assert all(1 <= value <= 100 for value in values)


@pytest.mark.parametrize("name", ["random", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol"])
@pytest.mark.parametrize("distribution", ["uniform", "logUniform"])
def test_ints_beyond_the_doubles_are_searched_inside_their_bounds(name: str, distribution: str) -> None:
    low, high = 9007199254740993, 9007199254740999
    parameters = [integer("x", str(low), str(high), distribution=distribution), double("y", "0", "1")]
    past: list[PastTrial] = []
    for index in range(14):
        (point,) = points(name, request(parameters, past=past), 1)
        past.append(PastTrial(point, "complete", float(index)))
    assert all(low <= int(trial.assignments["x"]) <= high for trial in past)


@pytest.mark.parametrize("name", ["random", "sobol", "cmaes", "bayesianoptimization", "multivariate-tpe"])
def test_a_log_range_is_drawn_evenly_over_its_decades(name: str) -> None:
    parameters = [double("lr", "1e-6", "1e-2", distribution="logUniform"), double("y", "0", "1")]
    drawn = points(name, request(parameters, settings={"random_state": "3"}), 40)
    small = sum(float(point["lr"]) < 1e-4 for point in drawn)
    assert 10 < small < 30


@pytest.mark.parametrize("name", ["random", "sobol", "bayesianoptimization"])
def test_a_normal_distribution_is_densest_in_the_middle(name: str) -> None:
    drawn = points(name, request([double("x", "0", "6", distribution="normal")], settings={"random_state": "3"}), 60)
    assert 30 < sum(2 <= float(point["x"]) <= 4 for point in drawn) < 52


def test_tpe_learns_from_finished_trials_and_does_not_repeat_running_ones() -> None:
    parameters = [double("x", "-10", "10")]
    past: list[PastTrial] = []
    for _ in range(30):
        (point,) = points("tpe", request(parameters, past=past, settings={"random_state": "1"}), 1)
        past.append(PastTrial(point, "complete", (float(point["x"]) - 3) ** 2))
    best = min(past, key=lambda trial: trial.value or 0)
    assert abs(float(best.assignments["x"]) - 3) < 0.5
    drawn = points("tpe", request(parameters, past=past), 4)
    assert len({point["x"] for point in drawn}) == 4


@pytest.mark.parametrize("name", ["tpe", "multivariate-tpe", "bayesianoptimization", "cmaes"])
def test_trials_without_a_value_do_not_stop_a_learning_algorithm(name: str) -> None:
    parameters = [double("x", "0", "10"), double("y", "0", "1")]
    failed = [PastTrial({"x": str(value), "y": "0.5"}, "failed") for value in range(10)]
    assert points(name, request(parameters, past=failed), 1)
    complete = [PastTrial({"x": str(value / 7), "y": "0.5"}, "complete", float(value)) for value in range(12)]
    assert points(name, request(parameters, past=[*failed, *complete]), 1)


def test_a_maximised_objective_is_searched_the_other_way() -> None:
    past = [PastTrial({"x": str(value)}, "complete", float(value)) for value in range(21)]
    drawn = {
        minimize: points("tpe", request([double("x", "0", "20")], past=past, minimize=minimize), 6)
        for minimize in (True, False)
    }
    low, high = (sum(float(point["x"]) for point in drawn[minimize]) / 6 for minimize in (True, False))
    assert low < 7 < 13 < high


def test_katib_settings_of_tpe_are_accepted() -> None:
    known = {"gamma": "0.3", "prior_weight": "1.5", "n_EI_candidates": "12", "random_state": "0"}
    past = [PastTrial({"x": str(value)}, "complete", float(value)) for value in range(12)]
    asked = request([double("x", "0", "20")], past=past, settings=known)
    load("tpe").validate(asked)
    assert len(points("tpe", asked, 2)) == 2


def test_katib_settings_of_multivariate_tpe_are_accepted_and_zero_means_the_least() -> None:
    known = {"n_startup_trials": "0", "n_ei_candidates": "0", "random_state": "0"}
    past = [PastTrial({"x": str(value)}, "complete", float(value)) for value in range(12)]
    asked = request([double("x", "0", "20")], past=past, settings=known)
    load("multivariate-tpe").validate(asked)
    assert len(points("multivariate-tpe", asked, 2)) == 2
    assert points("multivariate-tpe", asked, 2) != points("tpe", request([double("x", "0", "20")], past=past), 2)


def test_grid_gives_every_combination_once_and_then_says_that_it_has_ended() -> None:
    parameters = [double("x", "0.1", "0.3", step="0.1"), choice("c", "a", "b")]
    reply = load("grid").suggest(request(parameters), 10)
    assert reply.ended
    assert sorted((one.assignments["x"], one.assignments["c"]) for one in reply.suggested) == [
        (x, c) for x in ("0.1", "0.2", "0.3") for c in ("a", "b")
    ]
    assert not load("grid").suggest(request(parameters), 6).ended


def test_grid_leaves_out_what_was_suggested_before() -> None:
    past = [PastTrial({"n": "2"}), PastTrial({"n": "3"}, "failed")]
    drawn = points("grid", request([integer("n", "1", "4")], past=past), 4)
    assert sorted(point["n"] for point in drawn) == ["1", "4"]


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("random", {"seed": "1"}, "unknown setting seed for algorithm random"),
        ("random", {"random_state": "-1"}, "random_state should be great or equal than zero"),
        ("tpe", {"gamma": "1"}, "gamma should be in the range of (0, 1)"),
        ("tpe", {"prior_weight": "0"}, "prior_weight should be great than zero"),
        ("tpe", {"n_EI_candidates": "0"}, "n_EI_candidates should be great than zero"),
        ("tpe", {"random_state": "x"}, "failed to validate random_state(x): invalid literal"),
        ("grid", {"eta": "3"}, "unknown setting eta for algorithm grid"),
        ("multivariate-tpe", {"gamma": "0.5"}, "unknown setting gamma for algorithm multivariate-tpe"),
        ("multivariate-tpe", {"n_startup_trials": "-1"}, "n_startup_trials should be greate or equal than zero"),
        ("multivariate-tpe", {"n_ei_candidates": "1.5"}, "failed to validate n_ei_candidates(1.5): invalid literal"),
        ("cmaes", {"restart_strategy": "lpop"}, "invalid restart_strategy: 'lpop'"),
        ("cmaes", {"sigma": "0"}, "sigma should be great than zero"),
        ("cmaes", {"random_state": "x"}, "failed to validate random_state(x): invalid literal"),
    ],
)
def test_bad_settings_are_refused_in_katibs_words(name: str, known: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        load(name).validate(request(FINITE, settings=known))
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("name", ["cmaes", "sobol"])
def test_settings_that_katib_ignores_are_ignored(name: str) -> None:
    load(name).validate(request(FINITE, settings={"eta": "3", "random_state": "-1"}))


def test_grid_refuses_a_double_without_a_step_and_a_budget_above_the_combinations() -> None:
    with pytest.raises(InvalidSettingsError, match="Param: x step is nil"):
        load("grid").validate(request([double("x", "0", "1")]))
    with pytest.raises(InvalidSettingsError, match="Max Trial Count: 5 > all possible search combinations: 4"):
        load("grid").validate(request([integer("n", "1", "4")], max_trial_count=5))


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (double("x", "a", "1"), "feasibleSpace.min is 'a', not a number"),
        (double("x", "nan", "1"), "not a number"),
        (integer("x", "1", "2.5"), "feasibleSpace.max is '2.5', not an integer"),
        (double("x", "2", "1"), "is greater than"),
        (double("x", "0", "1", distribution="logUniform"), "must be positive for logUniform"),
        (double("x", "0", "1", step="-1"), "is not positive"),
        (double("x", "0", "1", step="1e-400"), "is not positive"),
        (double("x", "1e-400", "1", distribution="logUniform"), "must be positive for logUniform"),
        (double("x", "-1.7e308", "1.7e308"), "feasibleSpace.min -1.7e308 is beyond what can be searched, 1e+300"),
        (integer("x", "0", "1e400"), "feasibleSpace.max 1e400 is beyond what can be searched, 9223372036854775807"),
        (choice("x"), "feasibleSpace.list is empty"),
    ],
)
def test_a_range_or_list_that_cannot_be_drawn_from_is_refused(parameter: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        parse([parameter])
    assert text in str(caught.value)


def test_grid_draws_from_more_combinations_than_fit_in_memory() -> None:
    parameters = [integer(name, "1", "50000") for name in "abc"]
    past: list[PastTrial] = []
    for _ in range(3):
        past += [PastTrial(point) for point in points("grid", request(parameters, past=past), 2)]
    assert len({tuple(one.assignments.values()) for one in past}) == 6
    assert [one.assignments for one in past] == points("grid", request(parameters), 6)


def test_a_space_without_parameters_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="there are no parameters to search"):
        parse([])


@pytest.mark.parametrize("name", ["enas", "darts", "no such"])
def test_what_is_not_in_the_catalog_cannot_be_loaded(name: str) -> None:
    with pytest.raises(KeyError):
        load(name)
    assert name not in REFUSED_ALGORITHMS or "does not do" in REFUSED_ALGORITHMS[name]
