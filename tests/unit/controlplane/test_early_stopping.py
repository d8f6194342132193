from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.early_stopping import EarlyStoppingService
from airflow_llmtune.controlplane.db_manager import MetricLog
from both_modes import both_modes
from objects import Object
from suggestion_world import World, algorithm

Conditions = Callable[[Object], list[tuple[str, str, str]]]


@pytest.fixture
def world(registry: Registry, clock: Clock, tmp_path: Path) -> World:
    return World(registry, clock, tmp_path)


async def test_the_rule_for_early_stopping_goes_into_each_new_assignment(world: World, experiment: Object) -> None:
    world.ask(experiment, 3, earlyStopping=algorithm("medianstop", start_step="2"), parallelTrialCount=3)
    await world.settle()
    for assignment, values in zip(world.suggestions(), (("1", "3", "9"), ("4", "4"), ("9", "11")), strict=True):
        assert "earlyStoppingRules" not in assignment
        logs = [MetricLog(f"2026-11-22T09:00:0{second}Z", "loss", value) for second, value in enumerate(values)]
        logs.append(MetricLog("2026-11-22T09:00:00Z", "accuracy", "0.5"))
        world.db_manager.report_observation_log(assignment["name"], logs)
        world.end_trial(assignment, "0.5")
    world.request(4)
    await world.settle()
    rule = {"name": "loss", "value": "4.0", "comparison": "greater", "startStep": 2}
    assert world.suggestions()[3]["earlyStoppingRules"] == [rule]


@both_modes("early-stopped-stays-running")
def test_a_trial_is_marked_as_stopped_early(
    registry: Registry, clock: Clock, conditions: Conditions, strict: bool
) -> None:
    trial = registry.create(TRIAL, {"metadata": {"name": "t", "namespace": "default"}, "spec": {}})
    running = {"type": "Running", "status": "True", "reason": "TrialRunning", "message": "Trial is running"}
    stamps = {"lastUpdateTime": "2026-11-22T08:00:00Z", "lastTransitionTime": "2026-11-22T08:00:00Z"}
    registry.update_status(TRIAL, {**trial, "status": {"completionTime": None, "conditions": [running | stamps]}})
    service = EarlyStoppingService(registry, clock, strict=strict)
    service.set_trial_status("default", "t")
    stopped = registry.get(TRIAL, "default", "t")
    assert conditions(stopped) == [
        ("Running", "True" if strict else "False", "TrialRunning"),
        ("EarlyStopped", "True", "TrialEarlyStopped"),
    ]
    assert stopped["status"]["conditions"][-1]["message"] == "Trial is early stopped"
    assert stopped["status"]["completionTime"] == (None if strict else "2026-11-22T09:00:00Z")
    service.set_trial_status("default", "t")
    assert registry.get(TRIAL, "default", "t") == stopped


def test_a_trial_that_is_not_there_cannot_be_stopped(registry: Registry, clock: Clock) -> None:
    with pytest.raises(ApiError, match="not found"):
        EarlyStoppingService(registry, clock).set_trial_status("default", "t")
