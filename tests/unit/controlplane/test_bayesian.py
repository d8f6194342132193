from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.library_warnings import unheard
from airflow_llmtune.controlplane.algorithms.request import PastTrial
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, InvalidSettingsError
from searches import choice, double, integer, points, request, search

SPACE = [double("x", "-5", "5"), choice("kind", "good", "bad", "worse")]


def loss(point: Assignments) -> float:
    return (float(point["x"]) - 2) ** 2 + {"good": 0.0, "bad": 4.0, "worse": 8.0}[point["kind"]]


def best(**more: str) -> float:
    known = {"random_state": "1", "n_initial_points": "8", **more}
    past = search("bayesianoptimization", SPACE, loss, trials=22, settings=known)
    return min(trial.value or 0 for trial in past)


@pytest.mark.parametrize("estimator", ["GP", "RF", "ET", "GBRT"])
def test_every_estimator_finds_the_right_option_and_value(estimator: str) -> None:
    assert best(base_estimator=estimator) < 0.3


@pytest.mark.parametrize("function", ["gp_hedge", "LCB", "EI", "PI"])
def test_every_acquisition_function_finds_the_right_option_and_value(function: str) -> None:
    assert best(acq_func=function, acq_optimizer="sampling") < 0.3


@pytest.mark.parametrize("optimizer", ["auto", "sampling", "lbfgs"])
def test_every_optimizer_of_the_acquisition_is_accepted(optimizer: str) -> None:
    asked = request(SPACE, settings={"acq_optimizer": optimizer, "n_initial_points": "0"})
    load("bayesianoptimization").validate(asked)
    assert len(points("bayesianoptimization", asked, 2)) == 2


def test_the_initial_points_are_random_and_then_the_model_decides() -> None:
    known = {"n_initial_points": "4"}
    past = [PastTrial({"x": str(x), "kind": "good"}, "complete", abs(x - 3.0)) for x in (-4, 0, 4)]
    first = points("bayesianoptimization", request(SPACE, past=past, settings=known), 1)
    worse = [PastTrial(trial.assignments, "complete", 9 - (trial.value or 0)) for trial in past]
    assert points("bayesianoptimization", request(SPACE, past=worse, settings=known), 1) == first
    more = PastTrial({"x": "2.5", "kind": "good"}, "complete", 0.5)
    (point,) = points("bayesianoptimization", request(SPACE, past=[*past, more], settings=known), 1)
    assert 1 < float(point["x"]) <= 5


def test_a_trial_that_diverged_does_not_blind_the_model() -> None:
    parameters = [double("x", "-5", "5")]
    past = [PastTrial({"x": str(x)}, "complete", abs(x - 2.0)) for x in range(-5, 5)]
    diverged = PastTrial({"x": "-5.0"}, "complete", 1e300)
    asked = request(parameters, past=[*past, diverged], settings={"acq_func": "EI"})
    (point,) = points("bayesianoptimization", asked, 1)
    assert 1 < float(point["x"]) < 3


def test_of_very_many_trials_the_model_learns_from_the_best_and_the_latest() -> None:
    def past(poor: float) -> list[PastTrial]:
        places = [(number * 7 % 120) / 12 - 5 for number in range(120)]
        values = [poor if 40 <= number < 60 else (place - 2) ** 2 % 7 for number, place in enumerate(places)]
        return [PastTrial({"x": str(place)}, "complete", value) for place, value in zip(places, values, strict=True)]

    asked = [request([double("x", "-5", "5")], past=past(poor), settings={"acq_func": "LCB"}) for poor in (8.0, 9.0)]
    first, second = (points("bayesianoptimization", one, 3) for one in asked)
    assert first == second


def test_a_search_leaves_the_processors_to_the_trials() -> None:
    with unheard():
        assert {library["num_threads"] for library in threadpool_info()} == {1}


def test_equal_values_tell_nothing_and_do_no_harm() -> None:
    past = [PastTrial({"x": str(x), "kind": "bad"}, "complete", 1.0) for x in range(5)]
    asked = request(SPACE, past=[*past, PastTrial({"x": "5.0", "kind": "bad"})], settings={"n_initial_points": "3"})
    assert points("bayesianoptimization", asked, 1)


def test_trials_in_parallel_keep_apart() -> None:
    past = search("bayesianoptimization", SPACE, loss, trials=12, settings={"random_state": "1"})
    drawn = points("bayesianoptimization", request(SPACE, past=past, settings={"random_state": "1"}), 4)
    assert len({(point["x"], point["kind"]) for point in drawn}) == 4


def test_a_space_of_options_alone_is_searched() -> None:
    past = [PastTrial({"kind": kind}, "complete", loss({"kind": kind, "x": "2"})) for kind in ("bad", "worse")]
    asked = request(SPACE[1:], past=past, settings={"n_initial_points": "2"})
    assert points("bayesianoptimization", asked, 1) == [{"kind": "good"}]


def test_a_space_that_is_used_up_is_searched_again() -> None:
    space = [integer("n", "1", "3")]
    past = [PastTrial({"n": str(n)}, "complete", float(n)) for n in (1, 2, 3)]
    asked = request(space, past=past, settings={"n_initial_points": "1"})
    assert points("bayesianoptimization", asked, 1)[0]["n"] in {"1", "2", "3"}


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"base_estimator": "NN"}, "base_estimator NN is not supported in Bayesian optimization"),
        ({"n_initial_points": "-1"}, "n_initial_points should be great or equal than zero"),
        ({"n_initial_points": "x"}, "failed to validate n_initial_points(x): invalid literal"),
        ({"acq_func": "UCB"}, "acq_func UCB is not supported in Bayesian optimization"),
        ({"acq_optimizer": "adam"}, "acq_optimizer adam is not supported in Bayesian optimization"),
        ({"random_state": "-1"}, "random_state should be great or equal than zero"),
        ({"sigma": "1"}, "unknown setting sigma for algorithm bayesianoptimization"),
        (
            {"acq_func": "EIps"},
            "acq_func EIps weighs in how long each trial took, which Katib does not pass on; use EI",
        ),
        (
            {"acq_func": "PIps"},
            "acq_func PIps weighs in how long each trial took, which Katib does not pass on; use PI",
        ),
        (
            {"acq_optimizer": "lbfgs", "base_estimator": "RF"},
            "acq_optimizer lbfgs needs base_estimator GP, RF has no slope to follow",
        ),
    ],
)
def test_bad_settings_are_refused_in_katibs_words(known: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        load("bayesianoptimization").validate(request(SPACE, settings=known))
    assert str(caught.value).startswith(text)
