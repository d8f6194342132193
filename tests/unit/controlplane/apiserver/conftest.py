"""A registry with a clock that a test moves and an admission that remembers what it was asked."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, NAMESPACE, POD, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.store import Store


class RecordingAdmission:
    """Lets everything pass, marks it, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bool, str | None]] = []
        self.refusal: ApiError | None = None

    def admit(
        self,
        operation: str,
        kind: Kind,
        obj: dict[str, Any],
        old: dict[str, Any] | None,
        namespace: dict[str, Any] | None,
    ) -> dict[str, Any]:
        home = namespace["metadata"]["name"] if namespace else None
        self.calls.append((operation, kind.name, old is not None, home))
        if self.refusal is not None:
            raise self.refusal
        if kind is EXPERIMENT:
            obj.setdefault("spec", {}).setdefault("parallelTrialCount", 3)
        if kind is POD and operation == "CREATE":
            obj["status"] = {"phase": "Pending"}
        return obj


@pytest.fixture
def admission() -> RecordingAdmission:
    return RecordingAdmission()


@pytest.fixture
def registry(admission: RecordingAdmission, clock: Clock) -> Registry:
    registry = Registry(Store(), admission, clock)
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    admission.calls.clear()
    return registry
