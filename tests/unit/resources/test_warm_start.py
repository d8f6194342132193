"""The search space around a known point: inside the author's bounds, and never a point itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.experiment import ExperimentSpec
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import Parameter, SearchSpace
from airflow_llmtune.resources.warm_start import narrow, start_from


def space(**parameters: Any) -> SearchSpace:
    problems = Problems()
    read = SearchSpace.from_json(parameters, problems)
    problems.raise_if_any("space")
    return read


def around(parameter: dict[str, Any], value: Any, scale: float = 0.25) -> Parameter:
    (found,) = narrow(space(p=parameter), {"p": value}, scale).space.parameters
    return found


@pytest.mark.parametrize(
    ("parameter", "value", "low", "high"),
    [
        (search.double(0, 1), 0.5, 0.375, 0.625),
        (search.double(0, 1), 0.0, 0.0, 0.25),
        (search.double(0, 1), 0.95, 0.75, 1.0),
        (search.double(0, 1), 7.0, 0.75, 1.0),
        (search.double(-4, 4), -3.9, -4.0, -2.0),
        (search.double(0, 1, distribution="uniform"), 0.5, 0.375, 0.625),
        (search.double(0, 1, distribution="normal"), 0.5, 0.375, 0.625),
        (search.log_uniform(1e-5, 1e-1), 1e-3, 10**-3.5, 10**-2.5),
        (search.log_uniform(1e-5, 1e-1), 1e-1, 1e-2, 1e-1),
        (search.log_uniform(1e-5, 1e-1), 1e-9, 1e-5, 1e-4),
        (search.double(1, 16, distribution="logNormal"), 4, 2**1.5, 2**2.5),
        (search.double(0, 1, step=0.1), 0.5, 0.3, 0.7),
        (search.double(0, 1, step=0.5), 0.5, 0.0, 1.0),
        (search.double(0, 1, step=0.4), 0.8, 0.4, 0.8),
        (search.integer(1, 64), 32, 24, 40),
        (search.integer(1, 4), 2, 1, 3),
        (search.integer(1, 2), 2, 1, 2),
        (search.integer(1, 64), 64, 48, 64),
        (search.integer(8, 64, step=8), 32, 24, 40),
        (search.integer(1, 1024, distribution="logUniform"), 32, 13, 77),
        (search.integer(1, 64), "32", 24, 40),
    ],
)
def test_a_range_is_a_quarter_of_the_authors_around_the_point(parameter, value, low, high):
    found = around(parameter, value)
    assert (found.min, found.max) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))
    assert found.distribution == parameter.get("distribution")
    assert found.step == parameter.get("step")


def test_a_step_that_has_no_short_text_fits_between_the_bounds():
    found = around(search.double(0, 1, step=1 / 3), 1)
    assert (found.min, found.max) == (2 / 3, 1.0)
    assert around(search.double(0, 1, step=0.1), 0.5).min == 0.3


@pytest.mark.parametrize(
    ("values", "value", "kept"),
    [
        ([4, 8, 16, 32], 16, (8, 16, 32)),
        ([4, 8, 16, 32], 4, (4, 8)),
        ([32, 4, 16, 8], 16, (32, 16, 8)),
        ([4, 8, 16], 12.1, (8, 16)),
        ([4], 4, (4,)),
        (["cosine", "linear"], "linear", ("cosine", "linear")),
        ([True, False], True, (True, False)),
        ([4, "auto"], 4, (4, "auto")),
    ],
)
def test_of_ordered_values_the_neighbours_stay_and_of_others_all(values, value, kept):
    assert around(search.categorical(values), value).values == kept


def test_discrete_numbers_have_neighbours_too():
    assert around(search.discrete([0.1, 0.2, 0.3, 0.4]), 0.4).values == (0.3, 0.4)


@pytest.mark.parametrize(
    ("parameter", "point", "words"),
    [
        (search.double(0, 1), {}, "the starting point does not have it"),
        (search.double(0, 1), {"p": 3}, "`p`=3.0 lies outside 0.0 to 1.0; 1.0 is taken"),
        (search.double(0, 1), {"p": "auto"}, "'auto' is no number"),
        (search.categorical(["a", "b"]), {"p": "a"}, "they have no order"),
        (search.categorical([4, 8]), {"p": 16}, "`p`=16.0 is not listed; 8 is taken"),
    ],
)
def test_what_could_not_be_narrowed_is_told(parameter, point, words):
    (note,) = narrow(space(p=parameter), point, 0.25).notes
    assert words in note


def test_a_point_inside_needs_no_word_and_settings_that_are_not_searched_are_ignored():
    narrowed = narrow(space(p=search.double(0, 1)), {"p": 0.5, "max_steps": 100}, 0.25)
    assert narrowed.notes == ()
    assert narrowed.space.names == ("p",)


def test_the_whole_scale_is_the_whole_range():
    assert (around(search.double(0, 1), 0.3, 1.0).min, around(search.double(0, 1), 0.3, 1.0).max) == (0, 1)


_ranges = st.tuples(st.floats(1e-6, 1e3), st.floats(1.001, 1e6)).map(lambda pair: (pair[0], pair[0] * pair[1]))
_logs = st.sampled_from([None, "uniform", "logUniform", "normal", "logNormal"])


@given(_ranges, _logs, st.floats(-1e7, 1e9), st.floats(0.01, 1))
def test_a_narrowed_double_is_valid_within_the_bounds_and_holds_the_clamped_point(bounds, distribution, value, scale):
    given_space = {"p": search.double(*bounds, distribution=distribution)}
    (found,) = narrow(space(**given_space), {"p": value}, scale).space.parameters
    assert bounds[0] <= found.min < found.max <= bounds[1]
    inside = min(max(value, bounds[0]), bounds[1])
    assert found.min * (1 - 1e-5) <= inside <= found.max * (1 + 1e-5)
    assert math.isfinite(found.max)


@given(st.integers(-50, 50), st.integers(1, 200), st.integers(1, 20), st.integers(-300, 300), st.floats(0.01, 1))
def test_a_narrowed_int_stays_on_the_authors_grid_and_leaves_a_choice(low, width, step, value, scale):
    step = min(step, width)
    (found,) = narrow(space(p=search.integer(low, low + width, step=step)), {"p": value}, scale).space.parameters
    assert low <= found.min < found.max <= low + width
    assert (found.min - low) % step == 0
    assert found.max - found.min >= step
    inside = min(max(value, low), low + width)
    # The last grid point may lie below the author's own end.
    assert found.min <= inside < found.max + step


def spec(algorithm: str, trials: int, *, settings: Any = None, parallel: int = 2, **parameters: Any) -> ExperimentSpec:
    problems = Problems()
    made = ExperimentSpec.from_args(
        parameters=space(**parameters),
        objective_metric_name="eval_loss",
        objective_type="minimize",
        algorithm_name=algorithm,
        algorithm_settings=settings,
        max_trial_count=trials,
        parallel_trial_count=parallel,
        problems=problems,
    )
    problems.raise_if_any("spec")
    return made


def test_a_smaller_grid_has_no_more_trials_than_points():
    whole = spec("grid", 11, parallel=8, p=search.double(0, 1, step=0.1))
    narrower, _ = start_from(whole, {"p": 0.5}, 0.25)
    assert narrower.space.size() == 5
    assert (narrower.max_trial_count, narrower.parallel_trial_count) == (5, 5)


def test_the_resource_that_hyperband_hands_out_is_no_choice_to_narrow():
    settings = {"resource_name": "max_steps", "r_l": 3, "eta": 3}
    parameters = {"max_steps": search.integer(1, 3), "p": search.double(0, 1)}
    whole = spec("hyperband", 4, settings=settings, parallel=3, **parameters)
    narrower, notes = start_from(whole, {"max_steps": 3, "p": 0.5}, 0.25)
    steps, p = narrower.space.parameters
    assert (steps.min, steps.max) == (1, 3)
    assert (p.min, p.max) == (0.375, 0.625)
    assert "`max_steps` keeps its whole range" in notes[0]
