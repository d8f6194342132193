"""Keeps a training runtime that TrainJobs refer to from being deleted, as the trainer does: by a finalizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.train_job import runtime_kind
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.controllers.runtime import Controller, Key

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

IN_USE = "trainer.kubeflow.org/resource-in-use"


class TrainingRuntimeController(Controller):
    kind = TRAINING_RUNTIME
    owns = (TRAIN_JOB,)

    def keys_for(self, kind: Kind, obj: dict[str, Any]) -> Iterable[Key]:
        if kind == self.kind:
            return super().keys_for(kind, obj)
        reference = obj["spec"]["runtimeRef"]
        if runtime_kind(reference) != self.kind:
            return []
        return [(obj["metadata"]["namespace"] if self.kind.namespaced else "", reference["name"])]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        runtime = self.registry.find(self.kind, namespace or None, name)
        if runtime is None:
            return None
        finalizers = runtime["metadata"].get("finalizers", [])
        is_going = "deletionTimestamp" in runtime["metadata"]
        # All TrainJobs are looked at only when the answer can change something.
        if (IN_USE in finalizers) == is_going and self._is_used(namespace, name) != is_going:
            others = [one for one in finalizers if one != IN_USE]
            runtime["metadata"]["finalizers"] = others if is_going else [*others, IN_USE]
            self.registry.update(self.kind, runtime)
        return None

    def _is_used(self, namespace: str, name: str) -> bool:
        jobs = self.registry.entries(TRAIN_JOB, namespace or None)
        return any((namespace, name) in self.keys_for(TRAIN_JOB, dict(job.view)) for job in jobs)


class ClusterTrainingRuntimeController(TrainingRuntimeController):
    kind = CLUSTER_TRAINING_RUNTIME


def runtime_controllers(registry: Registry) -> list[Controller]:
    return [TrainingRuntimeController(registry), ClusterTrainingRuntimeController(registry)]
