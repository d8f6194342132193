from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.observation import best_trial, fold, is_available, reaches_goal
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, DBManager, MetricLog
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer
from airflow_llmtune.controlplane.metrics_collector import (
    FileMetricsCollector,
    FormatError,
    parse_json,
    parse_text,
)
from waiting import eventually

STAMP = "2026-11-22T09:00:00.123456Z"
LOSS = {
    "type": "minimize",
    "objectiveMetricName": "loss",
    "additionalMetricNames": ["acc"],
    "metricStrategies": [{"name": "loss", "value": "min"}, {"name": "acc", "value": "latest"}],
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{STAMP} loss=0.25", [(STAMP, "loss", "0.25")]),
        ("loss = 1.5e-3, acc=7", [(YEAR_ONE, "loss", "1.5e-3"), (YEAR_ONE, "acc", "7")]),
        ("epoch 1 loss=-2 and loss=+3", [(YEAR_ONE, "loss", "-2"), (YEAR_ONE, "loss", "+3")]),
        ("loss=nan", [(YEAR_ONE, "loss", "")]),
        ("loss=1,000", [(YEAR_ONE, "loss", "1")]),
        ("train/loss=0.2", [(YEAR_ONE, "loss", "0.2")]),
        ("my_loss=0.2 loss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        ("2026-11-22 09:00:00 loss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        ("2026-11-22T09:00:00.123456789+01:00 loss=0.1", [("2026-11-22T09:00:00.123456789+01:00", "loss", "0.1")]),
    ],
)
def test_a_line_gives_katibs_records(line: str, expected: list[tuple[str, str, str]]) -> None:
    assert parse_text([line], ["loss", "acc"]) == [MetricLog(*one) for one in expected]


def test_a_custom_filter_reads_python_dicts() -> None:
    pattern = r"'([\w|-]+)'\s*:\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
    found = parse_text(["{'train_loss': 0.31, 'epoch': 2.0}"], ["train_loss"], [pattern])
    assert found == [MetricLog(YEAR_ONE, "train_loss", "0.31")]


def test_without_the_objective_one_record_says_so_and_the_rest_is_dropped() -> None:
    assert parse_text(["acc=0.9", "done"], ["loss", "acc"]) == [MetricLog(YEAR_ONE, "loss", "unavailable")]


def test_json_lines_count_only_values_that_are_texts() -> None:
    lines = [
        '{"loss": "0.5", "acc": 0.9, "timestamp": "2026-11-22T09:00:00Z"}',
        "",
        '{"loss": "0.4", "timestamp": 1638422847.28721}',
        '{"loss": "0.3"}',
    ]
    assert parse_json(lines, ["loss", "acc"]) == [
        MetricLog("2026-11-22T09:00:00Z", "loss", "0.5"),
        MetricLog("2021-12-02T05:27:27.000028721Z", "loss", "0.4"),
        MetricLog(YEAR_ONE, "loss", "0.3"),
    ]
    with pytest.raises(FormatError, match="line 1"):
        parse_json(["loss=1"], ["loss"])


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


async def collect(folder: Path, db_manager: DBManager, lines: list[str], pid_text: str | None) -> tuple[int, bytes]:
    path, shown, ended = folder / "metrics.log", bytearray(), asyncio.Event()
    args = ("-t", "trial", "-m", "loss;acc", "-o-type", "minimize", "-s-db", "db:6789", "-path", str(path))
    running = asyncio.create_task(FileMetricsCollector(db_manager)(InProcessContainer(args, {}, shown.extend, ended)))
    for line in lines:
        with path.open("a") as file:
            file.write(f"{line}\n")
        await eventually(lambda line=line: line.encode() in shown)
    if pid_text is not None:
        (folder / "17.pid").write_text(pid_text)
    ended.set()
    return await running, bytes(shown)


async def test_the_sidecar_shows_the_output_while_it_is_written_and_reports_at_the_end(tmp_path: Path) -> None:
    db_manager = DBManager()
    code, shown = await collect(tmp_path, db_manager, ["epoch 1", "loss=0.5"], "completed\n")
    assert (code, shown) == (0, b"epoch 1\nloss=0.5\n")
    assert db_manager.get_observation_log("trial") == [MetricLog(YEAR_ONE, "loss", "0.5")]
    db_manager.delete_observation_log("trial")
    assert db_manager.get_observation_log("trial") == []


@pytest.mark.parametrize("pid_text", [None, "early-stopped\n"])
async def test_the_sidecar_fails_and_reports_nothing_when_the_training_did_not_complete(
    tmp_path: Path, pid_text: str | None
) -> None:
    db_manager = DBManager()
    code, _ = await collect(tmp_path, db_manager, ["loss=0.5"], pid_text)
    assert code == 1
    assert db_manager.get_observation_log("trial") == []


async def test_the_sidecar_explains_a_flag_it_does_not_know() -> None:
    shown = bytearray()
    container = InProcessContainer(("-t", "x"), {}, shown.extend, asyncio.Event())
    assert await FileMetricsCollector(DBManager())(container) == 2
    assert b"required" in shown


def test_observation_logs_are_ordered_by_time_and_can_be_asked_by_metric() -> None:
    db_manager = DBManager()
    late, early = MetricLog("2026-11-22T09:00:05Z", "loss", "1"), MetricLog("2026-11-22T09:00:01Z", "acc", "2")
    db_manager.report_observation_log("t", [late, early, MetricLog("", "loss", "dropped")])
    assert db_manager.get_observation_log("t") == [early, late]
    assert db_manager.get_observation_log("t", "loss") == [late]
