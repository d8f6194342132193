from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.observation import best_trial, fold, is_available, reaches_goal
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, MetricLog

LOSS = {
    "type": "minimize",
    "objectiveMetricName": "loss",
    "additionalMetricNames": ["acc"],
    "metricStrategies": [{"name": "loss", "value": "min"}, {"name": "acc", "value": "latest"}],
}


def folded(*values: str, stamps: list[str] | None = None) -> dict[str, str]:
    times = stamps or [YEAR_ONE] * len(values)
    logs = [MetricLog(time, "loss", value) for time, value in zip(times, values, strict=True)]
    return {key: value for key, value in fold(logs, LOSS)["metrics"][0].items() if key != "name"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0.50", "1e-1", "3"], {"min": "1e-1", "max": "3", "latest": "3"}),
        (["0.5", ""], {"min": "0.5", "max": "0.5", "latest": "0.5"}),
        (["inf", "2"], {"min": "2", "max": "2", "latest": "2"}),
        (["", "nan"], {"min": "unavailable", "max": "unavailable", "latest": "unavailable"}),
        ([], {"min": "unavailable", "max": "unavailable", "latest": "unavailable"}),
    ],
)
def test_folding_keeps_the_original_texts_and_passes_over_what_is_no_number(
    values: list[str], expected: dict[str, str]
) -> None:
    assert folded(*values) == expected


def test_latest_is_the_greatest_time_and_the_later_record_wins_ties() -> None:
    stamps = ["2026-11-22T09:00:02Z", "2026-11-22T09:00:05Z", "2026-11-22T09:00:05Z", "2026-11-22T09:00:01Z"]
    assert folded("1", "2", "3", "4", stamps=stamps)["latest"] == "3"


def test_a_bad_time_stamp_fails_the_fold() -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        folded("1", stamps=["yesterday"])


def test_every_metric_of_the_strategies_gets_an_entry_in_their_order() -> None:
    observation = fold([MetricLog(YEAR_ONE, "acc", "text")], LOSS)
    assert [metric["name"] for metric in observation["metrics"]] == ["loss", "acc"]
    assert observation["metrics"][1] == {
        "name": "acc",
        "min": "unavailable",
        "max": "unavailable",
        "latest": "text",
    }
    assert not is_available(observation, LOSS)


def trial(name: str, value: str) -> dict[str, Any]:
    metric = {"name": "loss", "min": value, "max": value, "latest": value}
    return {"metadata": {"name": name}, "status": {"observation": {"metrics": [metric]}}}


@pytest.mark.parametrize(
    ("type_", "values", "best"),
    [
        ("minimize", ["0.3", "0.1", "0.1"], "t1"),
        ("maximize", ["0.3", "0.1", "0.3"], "t0"),
        ("minimize", ["nan", "0.4", ""], "t1"),
        ("minimize", ["", "unavailable"], None),
        ("minimize", [], None),
    ],
)
def test_the_best_trial_has_the_best_finite_value_and_the_first_wins_ties(
    type_: str, values: list[str], best: str | None
) -> None:
    trials = [trial(f"t{index}", value) for index, value in enumerate(values)]
    found = best_trial(trials, {**LOSS, "type": type_})
    assert (found and found["metadata"]["name"]) == best


@pytest.mark.parametrize(
    ("type_", "goal", "number", "reached"),
    [
        ("minimize", 0.1, 0.1, True),
        ("minimize", 0.1, 0.11, False),
        ("maximize", 0.9, 0.9, True),
        ("maximize", 0.9, 0.8, False),
        ("minimize", None, -1.0, False),
    ],
)
def test_the_goal_itself_counts_as_reached(type_: str, goal: float | None, number: float, reached: bool) -> None:
    assert reaches_goal(number, {**LOSS, "type": type_, "goal": goal}) is reached


def test_a_strategy_may_lack_its_value_or_its_name_and_then_selects_nothing() -> None:
    objective = LOSS | {"metricStrategies": [{"value": "min"}, {"name": "loss"}]}
    observation = fold([MetricLog(YEAR_ONE, "loss", "1")], objective)
    assert [(metric["name"], metric["latest"]) for metric in observation["metrics"]] == [
        ("", "unavailable"),
        ("loss", "1"),
    ]
    assert best_trial([{"status": {"observation": observation}}], objective) is None
