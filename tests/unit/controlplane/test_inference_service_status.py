"""What an InferenceService tells of itself, from its Deployment and its pods."""

from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.controllers.inference_service_status import deployment_readiness
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions
from airflow_llmtune.controlplane.controllers.model_status import set_invalid, set_model_status
from objects import Object

EARLY, LATE = "2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z"


def told(status: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


def living(status: Object | None = None, now: str = EARLY) -> LivingConditions:
    return LivingConditions({} if status is None else status, ("A", "B"), now)


def test_at_first_nothing_is_known() -> None:
    conditions = living()
    conditions.initialize()
    assert told(conditions.status) == {"A": "Unknown", "B": "Unknown", "Ready": "Unknown"}


@pytest.mark.parametrize(
    ("marks", "ready"),
    [
        ([("A", "True")], "Unknown"),
        ([("A", "True"), ("B", "True")], "True"),
        ([("A", "True"), ("B", "False")], "False"),
        ([("B", "False"), ("A", "True")], "False"),
        ([("B", "False"), ("A", "Unknown")], "False"),
        ([("A", "True"), ("B", "True"), ("B", "Unknown")], "Unknown"),
        ([("A", "True"), ("B", "True"), ("Other", "False")], "True"),
        ([("A", "True"), ("B", "True"), ("Other", "Unknown")], "True"),
        ([("A", "False"), ("B", "False"), ("A", "True")], "False"),
    ],
)
def test_ready_follows_what_it_depends_on(marks: list[tuple[str, str]], ready: str) -> None:
    conditions = living()
    conditions.initialize()
    for type_, value in marks:
        conditions.mark(type_, value)
    assert told(conditions.status)["Ready"] == ready


def test_conditions_are_sorted_and_keep_their_time_while_they_say_the_same() -> None:
    status: Object = {}
    living(status).mark("Other", "False", "Why", "because")
    living(status).mark("A", "True")
    living(status, LATE).mark("Other", "False", "Why", "because")
    living(status, LATE).mark("A", "True", "More")
    assert status["conditions"] == [
        {"type": "A", "status": "True", "reason": "More", "lastTransitionTime": LATE},
        {
            "type": "Other",
            "status": "False",
            "severity": "Info",
            "reason": "Why",
            "message": "because",
            "lastTransitionTime": EARLY,
        },
        {"type": "Ready", "status": "Unknown", "lastTransitionTime": EARLY},
    ]
    living(status).clear("Other")
    assert told(status) == {"A": "True", "Ready": "Unknown"}


def test_ready_gives_the_reason_of_what_is_false() -> None:
    conditions = living()
    conditions.initialize()
    conditions.mark("A", "False", "Why", "because")
    conditions.mark("B", "True")
    ready = conditions.find("Ready")
    assert ready is not None
    assert (ready["reason"], ready["message"]) == ("Why", "because")


def condition(type_: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message}


AVAILABLE = condition("Available", "True", "MinimumReplicasAvailable", "enough")
NOT_AVAILABLE = condition("Available", "False", "MinimumReplicasUnavailable", "too few")
ROLLING = condition("Progressing", "True", "ReplicaSetUpdated", "rolling")
DONE = condition("Progressing", "True", "NewReplicaSetAvailable", "done")
LATE_ONE = condition("Progressing", "False", "ProgressDeadlineExceeded", "late")
FAILED = condition("ReplicaFailure", "True", "FailedCreate", "refused")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ("False", "", "")),
        ([ROLLING], ("Unknown", "ReplicaSetUpdated", "rolling")),
        ([NOT_AVAILABLE, ROLLING], ("False", "MinimumReplicasUnavailable", "too few")),
        ([AVAILABLE, ROLLING], ("True", "MinimumReplicasAvailable", "enough")),
        ([AVAILABLE, DONE], ("True", "NewReplicaSetAvailable", "done")),
        ([AVAILABLE, LATE_ONE], ("False", "ProgressDeadlineExceeded", "late")),
        ([NOT_AVAILABLE, DONE], ("False", "MinimumReplicasUnavailable", "too few")),
        ([AVAILABLE, DONE, FAILED], ("False", "FailedCreate", "refused")),
    ],
)
def test_a_predictor_is_as_ready_as_its_deployment(conditions: list[Object], expected: tuple[str, str, str]) -> None:
    assert deployment_readiness({"status": {"conditions": conditions}}) == expected


def ended(reason: str = "Error", code: int = 1, message: str = "boom") -> Object:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


CRASHING = {"waiting": {"reason": "CrashLoopBackOff"}}
RUNNING: Object = {"running": {}}


def pod(
    *, init: Object | None = None, main: Object | None = None, created: str = EARLY, is_ready: bool = False
) -> Object:
    status: Object = {"phase": "Running", "conditions": [condition("Ready", str(is_ready))]}
    for field, name, state in (
        ("initContainerStatuses", "storage-initializer", init),
        ("containerStatuses", "kserve-container", main),
    ):
        if state is not None:
            status[field] = [{"name": name, "lastState": {}, **state}]
    return {"metadata": {"creationTimestamp": created}, "status": status}


def state(now: Object, last: Object | None = None) -> Object:
    return {"state": now, "lastState": last or {}}


FAILURE = {"reason": "ModelLoadFailed", "message": "boom", "exitCode": 1}


@pytest.mark.parametrize(
    ("pods", "is_ready", "failed", "target", "transition", "failure"),
    [
        ([], False, False, "Pending", "InProgress", None),
        ([], False, True, "FailedToLoad", "BlockedByFailedLoad", None),
        ([pod(main=state(RUNNING))], False, False, "Pending", "InProgress", None),
        ([pod(main=state(RUNNING), is_ready=True)], True, False, "Loaded", "UpToDate", None),
        ([pod(init=state(RUNNING))], True, False, "Loading", "InProgress", None),
        ([pod(init=state(ended()))], True, False, "FailedToLoad", "BlockedByFailedLoad", FAILURE),
        ([pod(init=state(CRASHING, ended()))], True, False, "FailedToLoad", "BlockedByFailedLoad", FAILURE),
        ([pod(main=state(ended()))], False, False, "FailedToLoad", "BlockedByFailedLoad", FAILURE),
        ([pod(main=state(CRASHING, ended()))], False, False, "FailedToLoad", "BlockedByFailedLoad", FAILURE),
        # What crashes in an update is not looked at as long as the service is ready.
        ([pod(main=state(CRASHING, ended()), created=LATE), pod()], True, False, "Loaded", "UpToDate", None),
        ([pod(main=state(ended("OOMKilled", 137)))], False, False, "Pending", "InProgress", None),
        (
            [pod(main=state(CRASHING, ended("OOMKilled", 137, "")))],
            False,
            False,
            "FailedToLoad",
            "BlockedByFailedLoad",
            {"reason": "ModelLoadFailed", "exitCode": 137},
        ),
    ],
)
def test_the_model_is_told_from_the_newest_pod(
    pods: list[Object], is_ready: bool, failed: bool, target: str, transition: str, failure: Object | None
) -> None:
    status: Object = {}
    assert set_model_status(status, pods, is_ready=is_ready, failed=failed)
    model = status["modelStatus"]
    assert (model["states"]["targetModelState"], model["transitionStatus"]) == (target, transition)
    assert model.get("lastFailureInfo") == failure
    assert model["states"]["activeModelState"] == ("Loaded" if target == "Loaded" else "")


def test_an_initializer_that_failed_before_is_looked_at_again_soon() -> None:
    assert not set_model_status({}, [pod(init=state(RUNNING, ended()))], is_ready=False, failed=False)


def test_a_model_stays_loaded_while_the_next_one_fails_and_copies_are_counted() -> None:
    status: Object = {}
    set_model_status(status, [pod(is_ready=True), pod(is_ready=True)], is_ready=True, failed=False)
    assert status["modelStatus"]["copies"] == {"failedCopies": 0, "totalCopies": 2}
    set_model_status(status, [pod(init=state(ended()))], is_ready=False, failed=False)
    assert status["modelStatus"]["copies"] == {"failedCopies": 0}
    assert status["modelStatus"]["states"] == {"activeModelState": "Loaded", "targetModelState": "FailedToLoad"}


def test_a_spec_that_no_pod_can_be_made_of() -> None:
    status: Object = {}
    set_invalid(status, "NoSupportingRuntime", "none")
    assert status["modelStatus"] == {
        "transitionStatus": "InvalidSpec",
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "lastFailureInfo": {"reason": "NoSupportingRuntime", "message": "none"},
    }
