"""What a waiting task tells of an Experiment while it runs: lines in its log, and an XCom."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner

from airflow_llmtune.exceptions import ExperimentFailedError
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.triggers import progress
from supervisor import Supervisor
from task_run import defer
from tasks import any_experiment, raw_experiment
from waiting import eventually

LINE = re.compile(r"trial (\d)/4 (succeeded|failed)(?: loss=(\S+))?(?: best=(\S+))? \(trial (\S+)\)")


def gated(folder: Path, **spec: Any) -> dict[str, Any]:
    """An Experiment whose trials end one after the other, each takes a gate that was opened."""
    take = f"for gate in {folder}/gate*; do rmdir $gate 2>/dev/null && break 2; done"
    wait = f"while true; do {take}; sleep 0.05; done"
    report = "echo loss=${trialParameters.lr} layers ${trialParameters.layers}"
    return raw_experiment(f"{wait}; {report}", maxTrialCount=4, parallelTrialCount=1, **spec)


def opened(folder: Path, trials: int) -> None:
    for number in range(trials):
        (folder / f"gate{number}").mkdir()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message.partition(": ")[2] for message in caplog.messages if message.startswith("Experiment ")]


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(progress, "REST_SECONDS", 0.05)
    return supervisor


async def begun(plane: Any, log: pytest.LogCaptureFixture, watches: int) -> None:
    """Return when the Experiment was read, and one more watch of Trials is open."""
    await eventually(lambda: told(log) and plane.requests["watch", "trials.kubeflow.org"] > watches)


pytestmark = pytest.mark.timeout(60)


async def test_each_trial_has_one_line_and_the_wait_begins_with_a_summary(plane, kubeconfig, run, log, tmp_path):
    trigger = await defer(run, any_experiment(kubeconfig, gated(tmp_path)))
    before = plane.requests["watch", "trials.kubeflow.org"]
    waiting = asyncio.create_task(trigger.wait())
    await begun(plane, log, before)
    opened(tmp_path, 4)
    assert (await waiting).phase == "Succeeded"

    summary, *lines = told(log)
    assert re.fullmatch(r"0/4 trials done, \d running", summary)
    found = [LINE.fullmatch(line) for line in lines]
    assert None not in found
    assert [match[1] for match in found] == ["1", "2", "3", "4"]
    assert len({match[5] for match in found}) == 4
    values = [float(match[3]) for match in found]
    assert [float(match[4]) for match in found] == [pytest.approx(min(values[: n + 1])) for n in range(4)]


async def test_a_resumed_wait_tells_only_what_is_new(plane, kubeconfig, run, log, tmp_path):
    trigger = await defer(run, any_experiment(kubeconfig, gated(tmp_path)))
    before = plane.requests["watch", "trials.kubeflow.org"]
    first = asyncio.create_task(trigger.wait())
    await begun(plane, log, before)
    opened(tmp_path, 2)
    await eventually(lambda: len(told(log)) == 3)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    log.clear()

    second = asyncio.create_task(trigger.wait())
    await begun(plane, log, before + 1)
    opened(tmp_path, 2)
    assert (await second).phase == "Succeeded"
    summary, *lines = told(log)
    assert re.fullmatch(r"2/4 trials done, \d running, best loss=\S+ \(trial \S+\)", summary)
    assert [LINE.fullmatch(line)[1] for line in lines] == ["3", "4"]


async def test_without_the_trials_the_status_tells_the_same_in_summaries(plane, kubeconfig, run, log, tmp_path):
    trigger = await defer(run, any_experiment(kubeconfig, gated(tmp_path)))
    plane.faults.add("/trials\\?", code=403, message='User "me" cannot list resource "trials"', times=10_000)
    try:
        waiting = asyncio.create_task(trigger.wait())
        await eventually(lambda: told(log))
        opened(tmp_path, 4)
        assert (await waiting).phase == "Succeeded"
    finally:
        plane.faults.clear()
    assert not [line for line in told(log) if LINE.fullmatch(line)]
    assert told(log)[-1].startswith("4/4 trials done, 0 running, best loss=")
    assert len([message for message in log.messages if 'cannot list resource "trials"' in message]) == 1


async def test_the_xcom_changes_while_the_task_is_deferred_and_the_resumed_task_leaves_the_last_one(
    plane, kubeconfig, run, log, supervisor, tmp_path
):
    operator = any_experiment(kubeconfig, gated(tmp_path))
    trigger = await defer(run, operator)
    trigger.task_instance = SimpleNamespace(id=run.ti_id, dag_id="dag", task_id="task", run_id="run", map_index=-1)
    before = plane.requests["watch", "trials.kubeflow.org"]
    waiting = asyncio.create_task(trigger.wait())
    await begun(plane, log, before)
    for done in (1, 2, 3):
        opened(tmp_path, 1)
        await eventually(lambda done=done: [one for one in supervisor.values if one["counts"]["succeeded"] == done])
        await eventually(lambda: not (tmp_path / "gate0").exists())
    opened(tmp_path, 1)
    outcome: Outcome = await waiting
    count = len(supervisor.told)
    live = supervisor.values[-1]
    assert live["max_trials"] == 4
    assert live["best"]["metric"] == "loss"
    assert live["best"]["value"] == pytest.approx(float(live["best"]["parameters"]["lr"]))
    assert live["recent"][0]["state"] == "succeeded"

    event = outcome.to_event(trigger.name, trigger.namespace, trigger.uid)
    result = await asyncio.to_thread(operator.execute_complete, run.context(), event)
    last = run.xcoms["progress"]
    assert (last["counts"], last["best"]["trial"]) == (result["counts"], result["trial"])
    assert {one["name"] for one in last["recent"]} > {one["name"] for one in live["recent"][-3:]}
    assert len(supervisor.told) == count, "nothing comes after the wait"


def test_a_failed_experiment_leaves_its_last_state_too(kubeconfig, run, log):
    script = "echo ${trialParameters.lr} ${trialParameters.layers}; exit 3"
    operator = any_experiment(kubeconfig, raw_experiment(script, parallelTrialCount=1, maxFailedTrialCount=1))
    with pytest.raises(ExperimentFailedError):
        run.complete(operator)
    last = run.xcoms["progress"]
    assert (last["counts"]["failed"], last["best"]) == (1, None)
    assert [one["state"] for one in last["recent"]] == ["failed"]
