"""A registry with the real admission, a clock that the test moves, and an Experiment to start from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.store import Store
from objects import Object, shell_job, tuning_experiment

# Chosen by --hypothesis-profile=thorough; the property tests then take many more cases, and others at each run.
settings.register_profile("thorough", print_blob=True)


class MovableClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def registry(clock: MovableClock) -> Registry:
    store = Store()
    made = Registry(store, KatibAdmission(store), clock)
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    made.create(NAMESPACE, {"metadata": {"name": "default", "labels": labels}})
    made.create(NAMESPACE, {"metadata": {"name": "plain"}})
    return made


@pytest.fixture
def experiment() -> Object:
    """A valid one; each test changes what it is about."""
    made = tuning_experiment("exp", shell_job("echo loss=${trialParameters.rate}"))
    made["metadata"]["namespace"] = "default"
    return made


@pytest.fixture
def conditions() -> Callable[[Object], list[tuple[str, str, str]]]:
    """Type, status and reason of an object's conditions, in order."""

    def read(obj: Object) -> list[tuple[str, str, str]]:
        return [(one["type"], one["status"], one["reason"]) for one in obj["status"].get("conditions", [])]

    return read
