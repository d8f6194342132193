"""The TrainJob controller (Kubeflow Trainer 2.3): a TrainJob becomes a JobSet by its runtime.

All pods share one loopback interface, so the first process listens on a free port, chosen once per job, and not
always on 29500. A failed TrainJob stays failed when its JobSet goes; upstream it would be run again.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import yaml

from airflow_llmtune.controlplane.admission.train_job import CONTROLLER_NAME, runtime_kind
from airflow_llmtune.controlplane.apiserver.errors import ApiError, not_found
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    JOB_SET,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import train_job_status
from airflow_llmtune.controlplane.controllers.loopback_port import free_port
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import Controller, is_controlled_by, owner_reference
from airflow_llmtune.controlplane.controllers.train_job_parts import job_set, known_port
from airflow_llmtune.controlplane.quantities import QuantityError

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]

_SNAPSHOT = "-runtime-snapshot"
_LONGEST_ERROR = 950
_ABSENT = {
    True: "TrainingRuntime specified in TrainJob is not found",
    False: "not found ClusterTrainingRuntime specified in TrainJob",
}


class TrainJobController(Controller):
    kind = TRAIN_JOB
    owns = (JOB_SET,)

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        stored = self.registry.find(TRAIN_JOB, namespace, name)
        if stored is None or "deletionTimestamp" in stored["metadata"]:
            return None
        if stored["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
            return None
        job, now = copy.deepcopy(stored), self._clock()
        retry = None if train_job_status.is_finished(job) else self._make(job)
        train_job_status.set_suspended(job, now)
        made = self._own_job_set(job)
        if made is not None:
            train_job_status.mirror(job, made, now)
        left = train_job_status.seconds_to_deadline(job, now)
        if left is not None and left <= 0:
            train_job_status.set_overdue(job, now)
            if made is not None:
                self.registry.delete(JOB_SET, namespace, name)
        if (job.get("status") or {}) != (stored.get("status") or {}):
            self.registry.update_status(TRAIN_JOB, job)
        waits = [seconds for seconds in (retry, left) if seconds is not None and seconds > 0]
        return min(waits, default=None)

    def _own_job_set(self, job: Object) -> Object | None:
        found = self.registry.find(JOB_SET, job["metadata"]["namespace"], job["metadata"]["name"])
        return found if found is not None and is_controlled_by(found, job) else None

    def _make(self, job: Object) -> float | None:
        """The seconds after which to try again when the JobSet cannot be made now: no condition tells of it."""
        uid, kind = job["metadata"]["uid"], runtime_kind(job["spec"]["runtimeRef"])
        if kind is None:
            reference = job["spec"]["runtimeRef"]
            text = f"unsupported runtime: {reference['kind']}.{reference['apiGroup']}"
            train_job_status.set_unsupported(job, text, self._clock())
            return None
        try:
            self._apply(job, kind)
        except (ApiError, QuantityError) as error:
            text = str(error)
            shown = text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]} ..."
            message = f"TrainJob resources reconciliation failed: {shown}"
            self.registry.record_event(job, "Warning", "TrainJobResourcesCreationFailed", message)
            return self._retries.after_failure(uid)
        self._retries.after_success(uid)
        return None

    def _apply(self, job: Object, kind: Kind) -> None:
        """A JobSet that runs is left alone; a suspended one follows its TrainJob."""
        old = self._own_job_set(job)
        held = bool(job["spec"].get("suspend"))
        if old is not None and ("deletionTimestamp" in old["metadata"] or not (held or old["spec"].get("suspend"))):
            return
        port = (known_port(old) if old is not None else None) or free_port()
        wanted = job_set(job, self._runtime(job, kind), port)
        if old is None:
            self.registry.create(JOB_SET, wanted)
            return
        for field in ("labels", "annotations"):
            if field in wanted["metadata"]:
                old["metadata"][field] = {**old["metadata"].get(field, {}), **wanted["metadata"][field]}
        self.registry.update(JOB_SET, {**old, "spec": {**old["spec"], **wanted["spec"]}})

    def _runtime(self, job: Object, kind: Kind) -> Object:
        """As it was when the job was first looked at: later changes of the runtime do not concern it."""
        metadata = job["metadata"]
        name = f"{metadata['name']}{_SNAPSHOT}"
        kept = self.registry.find(CONFIG_MAP, metadata["namespace"], name)
        if kept is not None and is_controlled_by(kept, job):
            read: Object = yaml.safe_load(kept["data"]["runtime"])
            return read
        asked = job["spec"]["runtimeRef"]["name"]
        runtime = self.registry.find(kind, metadata["namespace"] if kind.namespaced else None, asked)
        if runtime is None:
            absent = not_found(kind, asked)
            absent.status["message"] = f"{_ABSENT[kind == TRAINING_RUNTIME]}: {absent.message}"
            raise ApiError(absent.status)
        snapshot = {
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "ownerReferences": [owner_reference(TRAIN_JOB, job)],
            },
            "data": {"runtime": yaml.safe_dump(runtime)},
        }
        self.registry.create(CONFIG_MAP, snapshot)
        return runtime
