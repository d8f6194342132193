"""When a deployed model is served, and when its new pods show that it will not be."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.revision import REVISION_LABEL
from airflow_llmtune.resources.rollout import Rollout, read_rollout

JSON = dict[str, Any]
NEW, OLD = "new", "old"
STARTED = 1000.0


def service(mode: str = "Standard", ready: str = "True", revision: str = NEW, **status: Any) -> JSON:
    conditions = [{"type": "Ready", "status": ready, "reason": "PredictorNotReady"}]
    return {
        "metadata": {"name": "chat"},
        "spec": {"predictor": {"labels": {REVISION_LABEL: revision}}},
        "status": {"deploymentMode": mode, "conditions": conditions, **status},
    }


def deployment(revision: str = NEW, name: str = "chat-predictor", **status: Any) -> JSON:
    # In Knative mode there is one for each revision.
    labels = {} if name.startswith(("chat-p", "chat-r", "chat-k")) else {"serving.knative.dev/revision": name}
    counts = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    return {
        "metadata": {"name": name, "generation": 2, "labels": labels},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {REVISION_LABEL: revision}}}},
        "status": {**counts, **status},
    }


def pod(waiting: str | None = None, revision: str = NEW, ended: JSON | None = None, **status: Any) -> JSON:
    state: JSON = {"waiting": {"reason": waiting, "message": "why"}} if waiting else {"running": {}}
    container = {"name": "kserve-container", "state": {"terminated": ended} if ended else state}
    return {
        "metadata": {"name": f"pod-{revision}", "labels": {REVISION_LABEL: revision}},
        "spec": {"containers": [{"name": "kserve-container"}]},
        "status": {"containerStatuses": [container], **status},
    }


UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]
}
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}


def look(
    obj: JSON, deployments: list[JSON], pods: list[JSON] | None = None, seconds: float = 1.0, **want: Any
) -> tuple[str, str]:
    rollout = Rollout(**{"revisions": [NEW], "started": STARTED, "start_timeout": 600.0, **want})
    outcome = read_rollout(obj, deployments, pods or [], rollout, STARTED + seconds)
    return outcome.phase, outcome.reason


SERVED, WAITING = ("Succeeded", "Ready"), ("Running", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (deployment(), SERVED),
        (deployment(OLD), WAITING),  # Ready still speaks of the version before
        (deployment(observedGeneration=1), WAITING),
        (deployment(updatedReplicas=0), WAITING),
        (deployment(availableReplicas=0), WAITING),
        (deployment(replicas=2), WAITING),  # an old pod is still there
        (deployment(name="chat-r1-predictor"), WAITING),  # a canary's
    ],
)
def test_a_model_is_served_when_all_of_its_deployments_pods_are_new(found, expected):
    assert look(service(), [found]) == expected


def test_a_service_that_is_not_ready_is_waited_for():
    assert look(service(ready="False"), [deployment()]) == WAITING
    assert look({**service(), "status": {}}, [deployment()]) == WAITING


def test_in_knative_mode_the_newest_revision_has_to_be_the_ready_one():
    def knative(created: str, ready: str) -> JSON:
        component = {"latestCreatedRevision": created, "latestReadyRevision": ready}
        return service("Knative", components={"predictor": component})

    found = [deployment(OLD, "chat-00001"), deployment(NEW, "chat-00002")]
    assert look(knative("chat-00001", "chat-00001"), found) == WAITING
    assert look(knative("chat-00002", "chat-00001"), found) == WAITING
    assert look(knative("chat-00002", "chat-00002"), found) == SERVED
    earlier = deployment(NEW, "chat-00001", availableReplicas=0)
    assert look(knative("chat-00002", "chat-00002"), [earlier, found[1]]) == SERVED


def tried(percent: int, told: int, *, ready: bool = True) -> JSON:
    """A canary that is to get ``percent``, and has ``told``."""
    obj = service(revision=OLD, canaryStatuses=[{"name": "r1", "ready": ready, "trafficPercent": told}])
    predictor = {"name": "r1", "labels": {REVISION_LABEL: NEW}}
    obj["spec"]["canary"] = [{"trafficPercent": percent, "predictor": predictor}]
    return obj


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (tried(20, 20), SERVED),
        (tried(20, 20, ready=False), WAITING),
        (tried(20, 10), WAITING),
        (tried(70, 20), ("Failed", "Superseded")),  # somebody else asks for another share by now
    ],
)
def test_a_share_of_the_requests_is_waited_for(obj, expected):
    assert look(obj, [deployment(name="chat-r1-predictor"), deployment(OLD)], traffic=20) == expected


@pytest.mark.parametrize("share", [20, 100])
def test_a_canary_that_was_promoted_or_ended_is_waited_for_until_it_is_gone(share):
    entry = {"name": "r1", "ready": True, "trafficPercent": share}
    assert look(service(canaryStatuses=[entry]), [deployment()]) == WAITING
    assert look(service(), [deployment()]) == SERVED


def knative(percent: int | None, told: int) -> JSON:
    targets = [{"revisionName": "b", "latestRevision": True, "percent": told}, {"revisionName": "a", "percent": 1}]
    component = {"latestCreatedRevision": "b", "latestReadyRevision": "b", "traffic": targets}
    obj = service("Knative", components={"predictor": component})
    if percent is not None:
        obj["spec"]["predictor"]["canaryTrafficPercent"] = percent
    return obj


@pytest.mark.parametrize(
    ("obj", "traffic", "expected"),
    [
        (knative(20, 20), 20, SERVED),
        (knative(70, 20), 70, WAITING),
        (knative(70, 70), 20, ("Failed", "Superseded")),
        (knative(None, 20), None, WAITING),  # promoted, and Knative has not acted on it yet
        (knative(None, 100), None, SERVED),
    ],
)
def test_the_share_of_the_newest_revision_is_what_knative_sends_there(obj, traffic, expected):
    assert look(obj, [deployment(name="b")], traffic=traffic) == expected


def test_in_knative_mode_each_component_has_its_own_newest_revision():
    component = {"latestCreatedRevision": "a-00002", "latestReadyRevision": "a-00002"}
    obj = service("Knative", components={"predictor": component})
    obj["spec"]["transformer"] = {"labels": {REVISION_LABEL: "beside"}}
    found = [deployment(OLD, "a-00001"), deployment(NEW, "a-00002"), deployment("beside", "b-00001")]
    assert look(obj, found, revisions=[NEW, "beside"]) == SERVED
    assert look(obj, found[:2], revisions=[NEW, "beside"]) == WAITING


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (pod("CrashLoopBackOff"), "CrashLoopBackOff"),
        (pod("ImagePullBackOff"), "ImagePullBackOff"),
        (pod("CreateContainerConfigError"), "CreateContainerConfigError"),
        (pod(ended={"reason": "OOMKilled", "exitCode": 137}), "OOMKilled"),
    ],
)
def test_a_new_pod_that_cannot_run_ends_the_wait(broken, reason):
    assert look(service(), [deployment(availableReplicas=0)], [broken]) == ("Failed", reason)


@pytest.mark.parametrize("harmless", [pod("CrashLoopBackOff", revision=OLD), pod("ContainerCreating"), pod()])
def test_other_pods_do_not(harmless):
    assert look(service(), [deployment(availableReplicas=0)], [harmless]) == WAITING


def test_in_knative_mode_pods_that_an_earlier_try_left_do_not_count():
    # It was rolled back to `a-00003`; Knative lets pods that never became ready stand for minutes.
    left = pod("CrashLoopBackOff")
    left["metadata"]["labels"]["serving.knative.dev/revision"] = "a-00002"
    before = [deployment(NEW, "a-00002", availableReplicas=0), deployment(OLD, "a-00003")]
    assert look(service("Knative"), before, [left]) == WAITING
    again = [*before, deployment(NEW, "a-00004", availableReplicas=0)]
    assert look(service("Knative"), again, [left]) == WAITING
    left["metadata"]["labels"]["serving.knative.dev/revision"] = "a-00004"
    assert look(service("Knative"), again, [left]) == ("Failed", "CrashLoopBackOff")


def test_a_pod_that_is_being_deleted_does_not_count():
    leaving = pod("CrashLoopBackOff")
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert look(service(), [deployment(availableReplicas=0)], [leaving]) == WAITING


@pytest.mark.parametrize(
    ("deployments", "pods", "reason"),
    [
        ([deployment(availableReplicas=0)], [pod("ContainerCreating", **UNSCHEDULABLE)], "NotReady"),
        ([deployment(availableReplicas=0, conditions=[LATE])], [], "NotProgressing"),
    ],
)
def test_what_may_still_get_better_is_given_its_time(deployments, pods, reason):
    assert look(service(), deployments, pods, seconds=599) == WAITING
    assert look(service(), deployments, pods, seconds=601) == ("Failed", reason)


INVALID = {"transitionStatus": "InvalidSpec", "lastFailureInfo": {"reason": "NoSupportingRuntime", "message": "none"}}
BLOCKED = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no"}}


def test_a_failure_that_the_status_tells_ends_the_wait_unless_it_may_be_an_old_one():
    obj = service(modelStatus=INVALID)
    assert look(obj, [deployment(OLD)]) == ("Failed", "NoSupportingRuntime")
    assert look(obj, [deployment(OLD)], had_failed=True) == WAITING
    assert look(obj, [deployment(OLD)], had_failed=True, seconds=31) == ("Failed", "NoSupportingRuntime")


def test_the_models_state_counts_when_no_pod_of_another_version_can_be_meant():
    obj = service(modelStatus=BLOCKED)
    waiting = [deployment(availableReplicas=0)]
    assert look(obj, waiting, [pod()]) == ("Failed", "ModelLoadFailed")
    assert look(obj, waiting, [pod(), pod(revision=OLD)]) == WAITING
    knative = service("Knative", modelStatus=BLOCKED, components={"predictor": {"latestCreatedRevision": "b"}})
    found = [deployment(OLD, "a"), deployment(NEW, "b", availableReplicas=0)]
    assert look(knative, found, [pod(), pod(revision=OLD)]) == ("Failed", "ModelLoadFailed")


def test_a_revision_that_never_gets_to_a_deployment_fails_too():
    component = {"predictor": {"latestCreatedRevision": "b", "latestReadyRevision": "a"}}
    knative = service("Knative", modelStatus=BLOCKED, components=component)
    assert look(knative, [deployment(OLD, "a")], [pod(revision=OLD)]) == ("Failed", "ModelLoadFailed")
    component["predictor"]["latestCreatedRevision"] = "a"
    assert look(knative, [deployment(OLD, "a")], [pod(revision=OLD)]) == WAITING


def test_what_kserve_does_not_act_on_fails_in_time_with_its_complaint():
    complaint = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": "bad volume"}
    obj = service()
    obj["status"]["conditions"].append(complaint)
    assert look(obj, [deployment(OLD)]) == WAITING
    outcome = read_rollout(obj, [deployment(OLD)], [], Rollout([NEW], STARTED, 600.0), STARTED + 601)
    assert outcome.reason == "NotStarted"
    assert outcome.message.endswith("PredictorReady: ReconcileFailed bad volume")


def test_an_object_that_asks_for_another_model_is_not_ours_any_more():
    assert look(service(revision="theirs"), [deployment()]) == ("Failed", "Superseded")


def test_an_llm_inference_service_is_waited_for_by_its_label():
    obj = {
        "metadata": {"name": "chat"},
        "spec": {"model": {}, "labels": {REVISION_LABEL: NEW}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert look(obj, []) == WAITING
    assert look(obj, [deployment(name="chat-kserve")]) == SERVED
