"""Which revision gets requests, and what is told of it, while revisions come, fail and go."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.knative_revisions import (
    KnativeStatus,
    Readiness,
    Revision,
    Target,
    knative_status,
    needed,
    readiness,
    revision_name,
    set_component,
    targets,
)
from objects import Object

YES, NO, UNKNOWN = Readiness("True"), Readiness("False", "ExitCode1", "boom"), Readiness("Unknown", "Deploying")


def look(component: Object, *states: Readiness, percent: int | None = None) -> KnativeStatus:
    """What one look at the revisions 1, 2, … makes of the component's status."""
    predictor = {} if percent is None else {"canaryTrafficPercent": percent}
    asked = targets(predictor, component.get("latestRolledoutRevision", ""), tag_latest=False)
    revisions = [Revision(f"r{index}", one) for index, one in enumerate(states, 1)]
    status = knative_status("r", revisions, component.get("latestReadyRevision", ""), asked)
    set_component(component, status)
    return status


def test_names_are_numbered() -> None:
    assert revision_name("chat-predictor", 12) == "chat-predictor-00012"


@pytest.mark.parametrize(
    ("percent", "rolled_out", "expected"),
    [
        (None, "r1", [Target(100)]),
        (10, "", [Target(100)]),
        (10, "r1", [Target(10), Target(90, "r1", "prev")]),
        (0, "r1", [Target(0), Target(100, "r1", "prev")]),
        (100, "r1", [Target(100)]),
    ],
)
def test_what_is_asked_of_knative(percent: int | None, rolled_out: str, expected: list[Target]) -> None:
    predictor = {} if percent is None else {"canaryTrafficPercent": percent}
    assert targets(predictor, rolled_out, tag_latest=False) == expected


def test_the_latest_may_have_a_tag() -> None:
    assert targets({}, "", tag_latest=True) == [Target(100, tag="latest")]


def test_the_first_revision_becomes_ready() -> None:
    component: Object = {}
    status = look(component, UNKNOWN)
    assert component == {"latestCreatedRevision": "r1"}
    assert status.readiness == Readiness("Unknown")
    assert status.routes.message == 'Configuration "r" is waiting for a Revision to become ready.'
    status = look(component, YES)
    assert status.readiness == YES
    assert component == {
        "latestCreatedRevision": "r1",
        "latestReadyRevision": "r1",
        "latestRolledoutRevision": "r1",
        "traffic": [{"latestRevision": True, "percent": 100, "revisionName": "r1"}],
    }


def test_the_first_revision_fails() -> None:
    status = look({}, NO)
    assert status.readiness == Readiness("False", "RevisionFailed", 'Revision "r1" failed with message: boom.')
    assert status.routes == Readiness("False", "RevisionMissing", 'Configuration "r" does not have any ready Revision.')
    assert status.failed
    assert status.shares == []


def test_a_broken_update_gets_no_requests() -> None:
    component: Object = {}
    look(component, YES)
    for state, value in ((UNKNOWN, "Unknown"), (NO, "False")):
        status = look(component, YES, state)
        assert (status.readiness.value, status.shares) == (value, [("r1", 100)])
        assert needed(status) == {"r1", "r2"}
    assert (component["latestReadyRevision"], component["latestCreatedRevision"]) == ("r1", "r2")


def test_an_update_takes_over_when_it_is_ready() -> None:
    component: Object = {}
    look(component, YES)
    status = look(component, YES, YES)
    assert status.shares == [("r2", 100)]
    assert needed(status) == {"r2"}
    assert (component["latestRolledoutRevision"], component["previousRolledoutRevision"]) == ("r2", "r1")


def test_a_revision_that_was_ready_keeps_its_requests_while_it_is_not() -> None:
    component: Object = {}
    look(component, YES)
    status = look(component, UNKNOWN)
    assert (status.readiness.value, status.shares) == ("Unknown", [("r1", 100)])


def test_a_canary_is_split_off_promoted_and_rolled_back() -> None:
    component: Object = {}
    look(component, YES)
    assert look(component, YES, UNKNOWN, percent=10).shares == [("r1", 100)]
    status = look(component, YES, YES, percent=10)
    assert status.shares == [("r2", 10), ("r1", 90)]
    assert component["traffic"][1] == {"latestRevision": False, "percent": 90, "revisionName": "r1", "tag": "prev"}
    assert component["latestRolledoutRevision"] == "r1"
    assert look(component, YES, YES, percent=0).shares == [("r2", 0), ("r1", 100)]
    assert look(component, YES, YES).shares == [("r2", 100)]
    assert component["latestRolledoutRevision"] == "r2"


def test_a_promoted_revision_is_taken_back_to_the_one_before() -> None:
    component: Object = {}
    look(component, YES)
    look(component, YES, YES)
    look(component, YES, YES, percent=10)
    assert component["latestRolledoutRevision"] == "r1"
    assert look(component, YES, YES, percent=10).shares == [("r2", 10), ("r1", 90)]


def deployment(available: int = 0, **condition: str) -> Object:
    return {"status": {"availableReplicas": available, "conditions": [condition] if condition else []}}


def pod(**container: Any) -> Object:
    status = {"name": "kserve-container", "image": "x:1", "state": {}, **container}
    return {"status": {"containerStatuses": [status]}}


@pytest.mark.parametrize(
    ("found", "pods", "expected"),
    [
        (deployment(1), [], Readiness("True")),
        (deployment(), [], UNKNOWN),
        (deployment(), [pod(state={"running": {}})], UNKNOWN),
        (
            deployment(),
            [pod(lastState={"terminated": {"exitCode": 1, "message": "boom"}})],
            Readiness("False", "ExitCode1", "Container failed with: boom"),
        ),
        (
            deployment(),
            [pod(state={"waiting": {"reason": "ErrImagePull", "message": "unknown"}})],
            Readiness("False", "ContainerMissing", 'Unable to fetch image "x:1": unknown'),
        ),
        (
            deployment(type="Progressing", status="False"),
            [],
            Readiness("False", "ProgressDeadlineExceeded", "Initial scale was never achieved"),
        ),
        (
            deployment(type="ReplicaFailure", status="True", reason="FailedCreate", message="no"),
            [],
            Readiness("False", "FailedCreate", "no"),
        ),
    ],
)
def test_how_a_revision_is_doing(found: Object, pods: list[Object], expected: Readiness) -> None:
    assert readiness(found, pods) == expected
