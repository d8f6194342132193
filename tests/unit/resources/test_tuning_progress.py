from __future__ import annotations

import json
import math
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.resources.tuning_progress import (
    EXPERIMENT_LABEL,
    MAX_BYTES,
    FinishedTrial,
    Snapshot,
    TuningProgress,
    read_finished,
    read_snapshot,
)

JSON = dict[str, Any]
LISTS = {
    "Succeeded": ("succeededTrialList", "trialsSucceeded"),
    "Failed": ("failedTrialList", "trialsFailed"),
    "Killed": ("killedTrialList", "trialsKilled"),
    "EarlyStopped": ("earlyStoppedTrialList", "trialsEarlyStopped"),
    "MetricsUnavailable": ("metricsUnavailableTrialList", "trialMetricsUnavailable"),
    "Running": ("runningTrialList", "trialsRunning"),
}
OBJECTIVE = {"type": "minimize", "objectiveMetricName": "loss"}


def observed(value: str) -> JSON:
    return {"metrics": [{"name": "loss", "min": value, "max": value, "latest": value}]}


def trial(name: str, phase: str = "Succeeded", value: str | None = "0.5", **parameters: str) -> JSON:
    status: JSON = {
        "conditions": [{"type": phase, "status": "True"}],
        "startTime": "2026-11-22T09:00:00Z",
        "completionTime": None if phase in {"Running", "EarlyStopped"} else "2026-11-22T09:01:30Z",
    }
    if value is not None:
        status["observation"] = observed(value)
    return {
        "metadata": {"name": name, "labels": {EXPERIMENT_LABEL: "exp"}},
        "spec": {
            "objective": OBJECTIVE,
            "parameterAssignments": [{"name": key, "value": text} for key, text in parameters.items()],
        },
        "status": status,
    }


def experiment(
    trials: dict[str, str], *, best: tuple[str, str] | None = None, total: int | None = 12, ended: bool = False
) -> JSON:
    """An Experiment whose trials have these phases."""
    status: JSON = {"currentOptimalTrial": {"observation": {}}, "trials": len(trials)}
    for phase, (names, counter) in LISTS.items():
        if mine := [name for name, held in trials.items() if held == phase]:
            status |= {names: mine, counter: len(mine)}
    if best is not None:
        status["currentOptimalTrial"] = {
            "bestTrialName": best[0],
            "parameterAssignments": [{"name": "lr", "value": "0.1"}],
            "observation": observed(best[1]),
        }
    if ended:
        status["conditions"] = [{"type": "Succeeded", "status": "True"}]
    spec = {"objective": OBJECTIVE, **({} if total is None else {"maxTrialCount": total})}
    return {"metadata": {"name": "exp"}, "spec": spec, "status": status}


def finished(name: str, phase: str = "Succeeded", value: str | None = "0.5", **parameters: str) -> FinishedTrial:
    read = read_finished(trial(name, phase, value, **parameters))
    assert read is not None
    return read


def snapshot(*succeeded: str, **more: Any) -> Snapshot:
    return read_snapshot(experiment(dict.fromkeys(succeeded, "Succeeded"), **more))


def waiting(*succeeded: str, **more: Any) -> TuningProgress:
    progress = TuningProgress()
    assert progress.update(snapshot(*succeeded, **more)) is not None
    return progress


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Created", "Running"])
def test_a_trial_that_runs_is_no_finished_one(phase: str) -> None:
    assert read_finished(trial("exp-a", phase)) is None


@pytest.mark.parametrize(
    ("phase", "state", "value", "seconds"),
    [
        ("Succeeded", "succeeded", 0.25, 90.0),
        ("EarlyStopped", "early stopped", 0.25, None),
        ("Failed", "failed", None, 90.0),
        ("MetricsUnavailable", "metrics unavailable", None, 90.0),
        ("Killed", "killed", None, 90.0),
    ],
)
def test_a_finished_trial_is_told_in_words_and_only_one_that_was_not_lost_has_a_value(
    phase: str, state: str, value: float | None, seconds: float | None
) -> None:
    assert read_finished(trial("exp-a", phase, "0.25", lr="0.1", opt="adam")) == FinishedTrial(
        "exp-a", "exp", state, value, {"lr": "0.1", "opt": "adam"}, seconds
    )


@pytest.mark.parametrize("text", ["unavailable", "NaN", "inf", "-Infinity", "1e999", "", None])
def test_what_is_no_finite_number_is_no_value(text: str | None) -> None:
    assert finished("exp-a", "Succeeded", text).value is None


def test_a_snapshot_holds_what_the_status_says() -> None:
    phases = {"exp-a": "Succeeded", "exp-b": "Running", **{f"exp-{phase}": phase for phase in LISTS}}
    read = read_snapshot(experiment(phases, best=("exp-a", "0.25")))
    assert sorted(read.finished) == sorted(name for name, phase in phases.items() if phase != "Running")
    assert (read.counts["succeeded"], read.counts["metrics_unavailable"], read.counts["running"]) == (2, 1, 2)
    assert (read.max_trials, read.metric, read.direction, read.ended) == (12, "loss", "minimize", False)
    assert read.best is not None
    assert (read.best.value, read.best.trial, read.best.parameters) == (0.25, "exp-a", {"lr": "0.1"})
    assert read_snapshot(experiment({}, ended=True)).ended


def test_a_status_that_has_not_been_written_yet_is_read_as_nothing() -> None:
    read = read_snapshot({"metadata": {"name": "exp"}, "spec": {"objective": OBJECTIVE}})
    assert (read.finished, read.max_trials, read.best, sum(read.counts.values())) == ((), None, None, 0)


# --- the lines ---------------------------------------------------------------------------------------------------


def test_each_trial_has_one_line_with_its_value_and_the_best() -> None:
    progress = waiting()
    assert progress.add(finished("exp-a", value="1.25")) == "trial 1/12 succeeded loss=1.25 best=1.25 (trial exp-a)"
    assert progress.add(finished("exp-b", value="1.5")) == "trial 2/12 succeeded loss=1.5 best=1.25 (trial exp-b)"
    assert progress.add(finished("exp-b", value="1.5")) is None
    assert progress.add(finished("exp-c", "Failed")) == "trial 3/12 failed best=1.25 (trial exp-c)"
    stopped = progress.add(finished("exp-d", "EarlyStopped", "0.75"))
    assert stopped == "trial 4/12 early stopped loss=0.75 best=0.75 (trial exp-d)"


def test_a_line_tells_no_total_where_there_is_none_and_no_best_where_nothing_has_a_value() -> None:
    progress = waiting(total=None)
    assert progress.add(finished("exp-a", "MetricsUnavailable")) == "trial 1 metrics unavailable (trial exp-a)"


def test_the_lines_of_a_resumed_wait_go_on_counting() -> None:
    progress = TuningProgress()
    phases = {"exp-a": "Succeeded", "exp-b": "Failed", "exp-c": "Running", "exp-d": "Running"}
    summary = progress.update(read_snapshot(experiment(phases, best=("exp-a", "0.3"))))
    assert summary == "2/12 trials done, 2 running, 1 failed, best loss=0.3 (trial exp-a)"
    assert progress.add(finished("exp-a", value="0.3")) is None
    assert progress.add(finished("exp-c", value="0.5")) == "trial 3/12 succeeded loss=0.5 best=0.3 (trial exp-c)"


def test_the_best_is_the_larger_value_when_that_is_asked_for() -> None:
    obj = experiment({}) | {"spec": {"objective": {**OBJECTIVE, "type": "maximize"}, "maxTrialCount": 12}}
    progress = TuningProgress()
    progress.update(read_snapshot(obj))
    progress.add(finished("exp-a", value="0.5"))
    assert "best=0.75" in str(progress.add(finished("exp-b", value="0.75")))
    assert "best=0.75" in str(progress.add(finished("exp-c", value="0.25")))


def test_metrics_that_come_after_the_end_are_taken_in_without_a_second_line() -> None:
    progress = waiting()
    progress.add(finished("exp-a", "EarlyStopped", None))
    assert progress.add(finished("exp-a", "EarlyStopped", "0.5")) is None
    told = progress.to_xcom()
    assert (told["best"]["value"], told["recent"][0]["value"]) == (0.5, 0.5)


# --- the summaries -----------------------------------------------------------------------------------------------


def test_a_status_tells_nothing_that_the_lines_have_told() -> None:
    progress = waiting()
    progress.add(finished("exp-a"))
    assert progress.update(snapshot("exp-a")) is None
    assert progress.update(snapshot("exp-a")) is None


def test_a_status_that_comes_before_its_trial_waits_for_the_line() -> None:
    progress = waiting()
    assert progress.update(snapshot("exp-a")) is None
    # The next trial was started.
    assert progress.update(read_snapshot(experiment({"exp-a": "Succeeded", "exp-b": "Running"}))) is None
    assert str(progress.add(finished("exp-a"))).startswith("trial 1/12 succeeded")


def test_a_trial_that_no_line_told_is_summed_up_when_the_next_has_finished() -> None:
    progress = waiting()
    progress.update(snapshot("exp-a"))
    summary = progress.update(snapshot("exp-a", "exp-b", best=("exp-a", "0.25")))
    assert summary == "2/12 trials done, 0 running, best loss=0.25 (trial exp-a)"
    assert str(progress.add(finished("exp-b"))).startswith("trial 2/12 succeeded")
    assert progress.update(snapshot("exp-a", "exp-b", "exp-c")) is None
    # Late, but it has come.
    assert progress.add(finished("exp-a")) is not None
    assert progress.add(finished("exp-a")) is None


def test_at_the_end_no_line_is_waited_for() -> None:
    progress = waiting()
    progress.add(finished("exp-a"))
    summary = progress.update(snapshot("exp-a", "exp-b", ended=True))
    assert summary == "2/12 trials done, 0 running, best loss=0.5 (trial exp-a)"
    assert progress.update(snapshot("exp-a", "exp-b", ended=True)) is None


def test_trials_that_come_before_the_first_status_are_part_of_its_summary() -> None:
    progress = TuningProgress()
    assert progress.add(finished("exp-a", value="0.5")) is None
    assert progress.to_xcom()["recent"] == []
    assert progress.update(snapshot()) == "1/12 trials done, 0 running, best loss=0.5 (trial exp-a)"
    assert progress.add(finished("exp-a", value="0.5")) is None
    assert str(progress.add(finished("exp-b"))).startswith("trial 2/12")


NAMES = [f"exp-{letter}" for letter in "abcdef"]


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.sets(st.sampled_from(NAMES)), st.sampled_from(["minimize", "maximize"]))
def test_in_any_order_with_repeats_and_gaps_nothing_is_told_twice_or_never(
    order: random.Random, lost: set[str], direction: str
) -> None:
    values = {name: str(order.uniform(-2, 2)) for name in NAMES}
    better = min if direction == "minimize" else max

    def status(count: int, *, ended: bool = False) -> Snapshot:
        names = NAMES[:count]
        best = better(names, key=lambda name: float(values[name]), default=None)
        obj = experiment(dict.fromkeys(names, "Succeeded"), best=best and (best, values[best]), ended=ended)
        obj["spec"]["objective"] = {**OBJECTIVE, "type": direction}
        return read_snapshot(obj)

    statuses = [status(count) for count in range(1, len(NAMES)) for _ in range(order.randint(0, 2))]
    trials = [finished(name, value=values[name]) for name in NAMES if name not in lost]
    trials += order.sample(trials, order.randint(0, len(trials)))
    progress = TuningProgress()
    lines, summaries = [], [progress.update(status(0))]
    while statuses or trials:
        if statuses and (not trials or order.random() < 0.5):
            summaries.append(progress.update(statuses.pop(0)))
        else:
            lines.append(progress.add(trials.pop(order.randrange(len(trials)))))
    summaries.append(progress.update(status(len(NAMES), ended=True)))

    told = [line.rpartition("(trial ")[2] for line in lines if line]
    assert sorted(told) == sorted(f"{name})" for name in NAMES if name not in lost)
    assert summaries[0] is not None
    if lost:
        assert any(summaries[1:])
    assert progress.to_xcom()["best"]["value"] == better(map(float, values.values()))
    assert progress.to_xcom()["counts"]["succeeded"] == len(NAMES)


# --- the XCom ----------------------------------------------------------------------------------------------------


def test_the_xcom_holds_counts_the_best_and_the_newest_trials_first() -> None:
    progress = waiting("exp-0")
    for number in range(1, 8):
        progress.add(finished(f"exp-{number}", value=str(1 / number), lr=str(number)))
    told = progress.to_xcom()
    assert told["counts"]["succeeded"] >= 5
    assert told["max_trials"] == 12
    assert told["best"] == {"metric": "loss", "value": 1 / 7, "trial": "exp-7", "parameters": {"lr": "7"}}
    assert [one["name"] for one in told["recent"]] == ["exp-7", "exp-6", "exp-5", "exp-4", "exp-3"]
    assert told["recent"][0] == {
        "name": "exp-7",
        "state": "succeeded",
        "value": 1 / 7,
        "parameters": {"lr": "7"},
        "seconds": 90.0,
    }


def test_the_counts_know_the_trials_that_the_status_does_not_have_yet() -> None:
    progress = TuningProgress()
    progress.update(read_snapshot(experiment({"exp-a": "Running", "exp-b": "Running"})))
    progress.add(finished("exp-a"))
    counts = progress.to_xcom()["counts"]
    assert (counts["trials"], counts["running"], counts["succeeded"]) == (2, 1, 1)


def test_before_anything_is_known_the_xcom_is_empty() -> None:
    assert TuningProgress().to_xcom() == {"counts": {}, "max_trials": None, "best": None, "recent": []}


@pytest.mark.parametrize(
    "parameters",
    [
        {f"parameter_{number}": "0.1234567890123" for number in range(100)},
        {"prompt": "long " * 10_000},
        {"prompt": "😀" * 10_000, "ä" * 1000: "x", "lr": "0.1"},
        {f"ü{number}" * 30: "\x00" * 300 for number in range(50)},
    ],
    ids=["many", "long", "beyond ASCII", "escapes"],
)
def test_whatever_is_searched_the_xcom_stays_small(parameters: dict[str, str]) -> None:
    progress = TuningProgress()
    obj = experiment({"t" * 253: "Succeeded"}, best=("t" * 253, "-1.2345678901234567e-300"))
    optimal = obj["status"]["currentOptimalTrial"]
    optimal["parameterAssignments"] = [{"name": key, "value": text} for key, text in parameters.items()]
    progress.update(read_snapshot(obj))
    for number in range(8):
        progress.add(finished(f"{'t' * 252}{number}", "EarlyStopped", "-1.2345678901234567e-300", **parameters))
    told = progress.to_xcom()
    assert len(json.dumps(told)) <= MAX_BYTES
    left_out = told["recent"][0]["parameters"].get("…")
    kept = set(told["recent"][0]["parameters"]) & set(parameters)
    assert len(kept) == len(parameters) - (0 if left_out is None else int(left_out.split()[0]))


def test_parameters_of_usual_length_are_all_there() -> None:
    parameters = {f"lora_target_module_{number}": "0.0012345678901234" for number in range(12)}
    assert finished("exp-a", **parameters).parameters == parameters


def test_numbers_are_finite_also_when_the_status_has_others() -> None:
    progress = TuningProgress()
    progress.update(read_snapshot(experiment({"exp-a": "Succeeded"}, best=("exp-a", "NaN"))))
    progress.add(finished("exp-b", value="inf"))
    told = progress.to_xcom()
    assert told["best"] is None
    assert told["recent"][0]["value"] is None
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_ten_thousand_of_them_are_small() -> None:
    def size(progress: TuningProgress) -> int:
        parts = [getattr(progress, name) for name in TuningProgress.__slots__]
        return sys.getsizeof(progress) + sum(sys.getsizeof(part) for part in parts)

    progress = waiting(*(f"exp-{number:08d}" for number in range(12)), best=("exp-a", "0.5"))
    assert size(progress) < 2_500
    assert not hasattr(progress, "__dict__")
    assert math.isfinite(progress.to_xcom()["best"]["value"])
