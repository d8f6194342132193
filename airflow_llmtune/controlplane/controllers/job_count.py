"""How a Job counts its pods: each once, whatever happens between two writes. Pure.

As in Kubernetes a finished pod keeps a finalizer until it is counted, and its uid stands in
``uncountedTerminatedPods`` from before the finalizer is taken off until after. So a plane that dies at any point
between neither forgets a pod nor counts it twice. Succeeded pods of an Indexed Job need no uid: their index tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_llmtune.controlplane.controllers import job_failure_policy as failure_policy
from airflow_llmtune.controlplane.controllers.job_indexes import (
    failure_counts,
    format_indexes,
    index_of,
    indexes_of,
    parse_indexes,
)
from airflow_llmtune.controlplane.pods import is_active, is_finished, is_terminating, phase

Object = dict[str, Any]

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"


@dataclass
class Count:
    """The pods of a Job that has not finished, read once."""

    spec: Mapping[str, Any]
    status: Object
    pods: Sequence[Object]
    active: list[Object]
    terminating: list[Object]
    uncounted: dict[str, list[str]]
    succeeded_indexes: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)

    @property
    def succeeded(self) -> int:
        if is_indexed(self.spec):
            return len(self.succeeded_indexes)
        return int(self.status.get("succeeded", 0)) + len(self.uncounted["succeeded"])

    @property
    def failed(self) -> int:
        return int(self.status.get("failed", 0)) + len(self.uncounted["failed"])

    @property
    def is_settled(self) -> bool:
        """Whether the counters in the status are the truth."""
        return not any(self.uncounted.values())

    def tracked(self) -> list[Object]:
        return [pod for pod in self.pods if is_tracked(pod)]

    def note_failed(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self.uncounted["failed"] and self._has_valid_index(pod):
            self.uncounted["failed"].append(uid)

    def _has_valid_index(self, pod: Object) -> bool:
        return not is_indexed(self.spec) or bool(indexes_of([pod], self.spec["completions"]))


def count(spec: Mapping[str, Any], status: Object, pods: Sequence[Object]) -> Count:
    """Reads the pods; moves into the counters those that lost their finalizer. ``status`` is changed."""
    made = Count(
        spec,
        status,
        pods,
        active=[pod for pod in pods if is_active(pod)],
        terminating=[pod for pod in pods if is_terminating(pod) and not is_finished(pod)],
        uncounted=_settled(status, pods),
    )
    if is_indexed(spec):
        _count_indexes(made)
    for pod in made.tracked():
        if phase(pod) == "Succeeded" and not is_indexed(spec):
            uid = pod["metadata"]["uid"]
            if uid not in made.uncounted["succeeded"]:
                made.uncounted["succeeded"].append(uid)
        elif is_failed(pod, spec) and _verdict(spec, pod).action != failure_policy.IGNORE:
            made.note_failed(pod)
    return made


def _settled(status: Object, pods: Sequence[Object]) -> dict[str, list[str]]:
    waiting = {pod["metadata"]["uid"] for pod in pods if is_tracked(pod)}
    left: dict[str, list[str]] = {}
    for counter in ("succeeded", "failed"):
        uids = (status.get("uncountedTerminatedPods") or {}).get(counter, [])
        left[counter] = [uid for uid in uids if uid in waiting]
        if len(left[counter]) < len(uids):
            status[counter] = status.get(counter, 0) + len(uids) - len(left[counter])
    return left


def _count_indexes(made: Count) -> None:
    spec, status = made.spec, made.status
    completions = spec["completions"]
    succeeded = [pod for pod in made.tracked() if phase(pod) == "Succeeded"]
    known = parse_indexes(status.get("completedIndexes", ""), completions)
    made.succeeded_indexes = known | indexes_of(succeeded, completions)
    if spec.get("backoffLimitPerIndex") is not None:
        failed = [pod for pod in made.tracked() if _fails_its_index(spec, pod)]
        known = parse_indexes(status.get("failedIndexes", ""), completions)
        made.failed_indexes = known | indexes_of(failed, completions)


def _fails_its_index(spec: Mapping[str, Any], pod: Object) -> bool:
    if not is_failed(pod, spec):
        return False
    action = _verdict(spec, pod).action
    limit: int = spec["backoffLimitPerIndex"]
    return action == failure_policy.FAIL_INDEX or (action != failure_policy.IGNORE and failure_counts(pod)[0] >= limit)


def write_counters(made: Count) -> None:
    """Into the status; uids stay uncounted until their pods are let go."""
    status = made.status
    status["uncountedTerminatedPods"] = {key: uids for key, uids in made.uncounted.items() if uids}
    if not is_indexed(made.spec):
        return
    for name, value in (("succeeded", made.succeeded), ("completedIndexes", format_indexes(made.succeeded_indexes))):
        if value:
            status[name] = value
        else:
            status.pop(name, None)
    if made.spec.get("backoffLimitPerIndex") is not None:
        status["failedIndexes"] = format_indexes(made.failed_indexes)


def countable(made: Count) -> list[Object]:
    """Tracked pods that have ended and may go. An index's last failed pod stays until another replaces it."""
    ended = [pod for pod in made.tracked() if phase(pod) == "Succeeded" or is_failed(pod, made.spec)]
    kept = {pod["metadata"]["name"] for pod in last_failures(made).values()}
    return [pod for pod in ended if pod["metadata"]["name"] not in kept]


def last_failures(made: Count) -> dict[int, Object]:
    """The failed pod to replace, for each index that is tried again on its own account."""
    if made.spec.get("backoffLimitPerIndex") is None:
        return {}
    done = made.succeeded_indexes | made.failed_indexes | indexes_of(made.active, made.spec["completions"])
    found: dict[int, Object] = {}
    for pod in made.tracked():
        index = index_of(pod)
        if index is None or index in done or not is_failed(pod, made.spec):
            continue
        if index not in found or sum(failure_counts(pod)) >= sum(failure_counts(found[index])):
            found[index] = pod
    return found


def fatal_message(made: Count) -> str:
    """Why a failed pod ends the whole job, by its ``podFailurePolicy``."""
    for pod in made.tracked():
        if is_failed(pod, made.spec):
            found = _verdict(made.spec, pod)
            if found.action == failure_policy.FAIL_JOB:
                return found.message
    return ""


def is_failed(pod: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """A deleted pod has failed, but for a job that only replaces those which ended as failed."""
    if phase(pod) == "Failed":
        return True
    return not replaces_only_failed(spec) and is_terminating(pod) and phase(pod) != "Succeeded"


def replaces_only_failed(spec: Mapping[str, Any]) -> bool:
    return spec.get("podReplacementPolicy") == "Failed" or "podFailurePolicy" in spec


def is_indexed(spec: Mapping[str, Any]) -> bool:
    return spec.get("completionMode") == "Indexed"


def is_tracked(pod: Mapping[str, Any]) -> bool:
    return TRACKING_FINALIZER in pod["metadata"].get("finalizers", ())


def ignores(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    return _verdict(spec, pod).action == failure_policy.IGNORE


def _verdict(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> failure_policy.Verdict:
    return failure_policy.verdict(spec.get("podFailurePolicy"), pod)
