from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES, load
from airflow_llmtune.controlplane.algorithms.request import PastTrial, SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError, parse


def double(name: str, low: str, high: str, **more: str) -> dict[str, Any]:
    space = {"min": low, "max": high, **more}
    return {"name": name, "parameterType": "double", "feasibleSpace": space}


def integer(name: str, low: str, high: str, **more: str) -> dict[str, Any]:
    return {**double(name, low, high, **more), "parameterType": "int"}


def choice(name: str, *options: str, type_: str = "categorical") -> dict[str, Any]:
    return {"name": name, "parameterType": type_, "feasibleSpace": {"list": list(options)}}


MIXED = [
    double("lr", "1e-5", "1e-2", distribution="logUniform"),
    double("dropout", "0.0", "0.5", step="0.1"),
    integer("rank", "4", "64", step="4"),
    choice("optimizer", "adamw", "sgd"),
    choice("batch", "8", "16", "32", type_="discrete"),
]
FINITE = MIXED[1:]


def request(parameters: list[dict[str, Any]], **more: Any) -> SearchRequest:
    return SearchRequest(space=parse(parameters), minimize=True, experiment_uid="uid", **more)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_every_value_is_a_text_inside_its_feasible_space(name: str) -> None:
    points = load(name).suggest(request(FINITE), 20)
    assert len(points) == 20
    for point in points:
        assert point["dropout"] in {"0.0", "0.1", "0.2", "0.3", "0.4", "0.5"}
        assert int(point["rank"]) in range(4, 65, 4)
        assert point["optimizer"] in {"adamw", "sgd"}
        assert point["batch"] in {"8", "16", "32"}


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
@pytest.mark.parametrize("settings", [{}, {"random_state": "7"}])
def test_the_same_request_gives_the_same_points(name: str, settings: dict[str, str]) -> None:
    algorithm = load(name)
    assert algorithm.suggest(request(FINITE, settings=settings), 3) == algorithm.suggest(
        request(FINITE, settings=settings), 3
    )


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_other_seeds_give_other_points(name: str) -> None:
    algorithm = load(name)
    first = algorithm.suggest(request(FINITE, settings={"random_state": "1"}), 3)
    assert first != algorithm.suggest(request(FINITE, settings={"random_state": "2"}), 3)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_batching_of_calls_does_not_change_the_search(name: str) -> None:
    algorithm = load(name)
    together = algorithm.suggest(request(FINITE), 3)
    past: list[PastTrial] = []
    for _ in range(3):
        past += [PastTrial(one) for one in algorithm.suggest(request(FINITE, past=past), 1)]
    assert [trial.assignments for trial in past] == together


@pytest.mark.parametrize("name", ["random", "tpe"])
@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
@pytest.mark.parametrize("make", [double, integer])
def test_all_distributions_can_be_drawn_from_again_and_again(name: str, distribution: str, make: Any) -> None:
    parameters = [make("x", "1", "100", distribution=distribution)]
    algorithm = load(name)
    past: list[PastTrial] = []
    for index in range(12):
        (point,) = algorithm.suggest(request(parameters, past=past), 1)
        past.append(PastTrial(point, "complete", float(index)))
    values = {float(trial.assignments["x"]) for trial in past}
    assert len(values) > 6
    if not distribution.endswith("ormal"):
        assert all(1 <= value <= 100 for value in values)


def test_a_log_range_is_drawn_evenly_over_its_decades() -> None:
    points = load("random").suggest(request([double("lr", "1e-6", "1e-2", distribution="logUniform")]), 60)
    small = sum(float(point["lr"]) < 1e-4 for point in points)
    assert 15 < small < 45


def test_tpe_learns_from_finished_trials_and_does_not_repeat_running_ones() -> None:
    parameters = [double("x", "-10", "10")]
    algorithm = load("tpe")
    past: list[PastTrial] = []
    for _ in range(30):
        (point,) = algorithm.suggest(request(parameters, past=past, settings={"random_state": "1"}), 1)
        past.append(PastTrial(point, "complete", (float(point["x"]) - 3) ** 2))
    best = min(past, key=lambda trial: trial.value or 0)
    assert abs(float(best.assignments["x"]) - 3) < 0.5
    points = algorithm.suggest(request(parameters, past=past), 4)
    assert len({point["x"] for point in points}) == 4


def test_trials_without_a_value_do_not_stop_tpe() -> None:
    past = [PastTrial({"x": str(value)}, "failed") for value in range(10)]
    past += [PastTrial({"x": str(value / 7)}, "complete", float(value)) for value in range(12)]
    assert load("tpe").suggest(request([double("x", "0", "10")], past=past), 1)


def test_katib_settings_of_tpe_are_accepted() -> None:
    settings = {"gamma": "0.3", "prior_weight": "1.5", "n_EI_candidates": "12", "random_state": "0"}
    past = [PastTrial({"x": str(value)}, "complete", float(value)) for value in range(12)]
    algorithm = load("tpe")
    asked = request([double("x", "0", "20")], past=past, settings=settings)
    algorithm.validate(asked)
    assert len(algorithm.suggest(asked, 2)) == 2


def test_grid_gives_every_combination_once_and_then_no_more() -> None:
    parameters = [double("x", "0.1", "0.3", step="0.1"), choice("c", "a", "b")]
    points = load("grid").suggest(request(parameters), 10)
    assert sorted((point["x"], point["c"]) for point in points) == [
        (x, c) for x in ("0.1", "0.2", "0.3") for c in ("a", "b")
    ]


def test_grid_leaves_out_what_was_suggested_before() -> None:
    parameters = [integer("n", "1", "4")]
    past = [PastTrial({"n": "2"}), PastTrial({"n": "3"}, "failed")]
    points = load("grid").suggest(request(parameters, past=past), 4)
    assert sorted(point["n"] for point in points) == ["1", "4"]


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("random", {"seed": "1"}, "unknown setting seed for algorithm random"),
        ("random", {"random_state": "-1"}, "random_state should be great or equal than zero"),
        ("tpe", {"gamma": "1"}, "gamma should be in the range of (0, 1)"),
        ("tpe", {"prior_weight": "0"}, "prior_weight should be great than zero"),
        ("tpe", {"n_EI_candidates": "0"}, "n_EI_candidates should be great than zero"),
        ("tpe", {"random_state": "x"}, "failed to validate random_state(x): invalid literal"),
        ("grid", {"eta": "3"}, "unknown setting eta for algorithm grid"),
    ],
)
def test_bad_settings_are_refused_in_katibs_words(name: str, settings: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        load(name).validate(request(FINITE, settings=settings))
    assert str(caught.value).startswith(text)


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
        drawn = load("grid").suggest(request(parameters, past=past), 2)
        past += [PastTrial(point) for point in drawn]
    assert len({tuple(one.assignments.values()) for one in past}) == 6
    assert [one.assignments for one in past] == load("grid").suggest(request(parameters), 6)


def test_a_space_without_parameters_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="there are no parameters to search"):
        parse([])
