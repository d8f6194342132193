"""Which rules apply to which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_llmtune.controlplane.admission import kubernetes
from airflow_llmtune.controlplane.admission.experiment import (
    INJECTION_LABEL,
    default_experiment,
    validate_experiment,
)
from airflow_llmtune.controlplane.admission.pod import mutate_pod
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EXPERIMENT,
    JOB,
    POD,
    PYTORCH_JOB,
    Kind,
)

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.store import Store

Object = dict[str, Any]


class KatibAdmission:
    """Takes the store, not the registry: the registry needs its admission first."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def admit(
        self,
        operation: Literal["CREATE", "UPDATE"],
        kind: Kind,
        obj: Object,
        old: Object | None,
        namespace: Object | None,
    ) -> Object:
        if kind == EXPERIMENT:
            return self._admit_experiment(obj, old, namespace)
        if operation == "CREATE":
            self._admit_workload(kind, obj, namespace)
        return obj

    def _admit_experiment(self, obj: Object, old: Object | None, namespace: Object | None) -> Object:
        if "deletionTimestamp" in obj["metadata"]:
            return obj  # Only finalizers change now, and a namespace being deleted may have lost its label.
        experiment = default_experiment(obj)
        validate_experiment(experiment, old, namespace, self._config_map_text)
        return experiment

    def _admit_workload(self, kind: Kind, obj: Object, namespace: Object | None) -> None:
        if kind == POD:
            kubernetes.check_pod(obj)
            labels = (namespace or {}).get("metadata", {}).get("labels", {})
            if labels.get(INJECTION_LABEL) == "enabled":
                mutate_pod(obj, self._find)
            kubernetes.default_pod(obj)
        elif kind == JOB:
            kubernetes.check_job(obj)
            kubernetes.default_job(obj)
        elif kind == PYTORCH_JOB:
            kubernetes.check_pytorch_job(obj)
            kubernetes.default_pytorch_job(obj)

    def _find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        entry = self._store.get(kind, namespace if kind.namespaced else "", name)
        return None if entry is None else entry.copy()

    def _config_map_text(self, source: dict[str, str]) -> str | None:
        found = self._find(CONFIG_MAP, source["configMapNamespace"], source["configMapName"])
        text = ((found or {}).get("data") or {}).get(source["templatePath"])
        return None if text is None else str(text)
