from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_llmtune.controlplane.clock import timestamp
from airflow_llmtune.controlplane.controllers.pod_availability import (
    DELETION_COST,
    available,
    first_to_go,
    next_to_become_available,
)

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return timestamp(NOW - timedelta(seconds=seconds))


def pod(
    name: str,
    *,
    phase: str = "Running",
    ready: float | None = None,
    node: str = "node",
    age: float = 100,
    restarts: int = 0,
    cost: str = "",
    uid: str = "",
) -> dict[str, Any]:
    """``ready`` is since how many seconds."""
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": ago(ready)} if ready is not None else {}
    metadata: dict[str, Any] = {"name": name, "uid": uid or name, "creationTimestamp": ago(age)}
    if cost:
        metadata["annotations"] = {DELETION_COST: cost}
    return {
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": [condition] if condition else [],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("a", node="", phase="Pending"), pod("b", phase="Pending")),
        (pod("a", phase="Pending"), pod("b", phase="Unknown")),
        (pod("a", phase="Unknown"), pod("b")),
        (pod("a"), pod("b", ready=5)),
        (pod("a", cost="-1"), pod("b")),
        (pod("a", ready=5), pod("b", ready=5, cost="10")),
        (pod("a", ready=5, cost="x"), pod("b", ready=5, cost="1")),
        # A cheap one that is ready stays before a costly one that is not.
        (pod("a", cost="10"), pod("b", ready=5, cost="-10")),
        # Ready for less time, by orders of magnitude; else it is drawn by the uid.
        (pod("a", ready=5), pod("b", ready=500)),
        (pod("a", ready=0), pod("b", ready=1)),
        (pod("a", ready=65, uid="1"), pod("b", ready=60, uid="2")),
        (pod("a", ready=60, uid="1"), pod("b", ready=65, uid="2")),
        (pod("a", ready=5, restarts=3), pod("b", ready=5, restarts=1)),
        (pod("a", restarts=3), pod("b", restarts=1)),
        (pod("a", age=5), pod("b", age=500)),
        (pod("a", age=65, uid="1"), pod("b", age=60, uid="2")),
    ],
)
def test_which_of_two_pods_goes_first(first: dict[str, Any], second: dict[str, Any]) -> None:
    for pods in ([first, second], [second, first]):
        assert [one["metadata"]["name"] for one in first_to_go(pods, 1, NOW)] == ["a"]


@pytest.mark.parametrize(
    ("ready", "minimum", "count", "wait"),
    [
        (None, 0, 0, None),
        (None, 10, 0, None),
        (0, 0, 1, None),
        (4, 10, 0, 6),
        (10, 10, 1, None),
        (60, 10, 1, None),
    ],
)
def test_when_a_pod_is_available(ready: float | None, minimum: int, count: int, wait: float | None) -> None:
    pods = [pod("a", ready=ready)]
    assert (available(pods, minimum, NOW), next_to_become_available(pods, minimum, NOW)) == (count, wait)


def test_a_ready_pod_that_does_not_say_since_when_counts_from_its_creation() -> None:
    one = pod("a", ready=0, age=20)
    del one["status"]["conditions"][0]["lastTransitionTime"]
    assert available([one], 15, NOW) == 1
