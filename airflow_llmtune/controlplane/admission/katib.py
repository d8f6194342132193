"""Which rules apply to which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_llmtune.controlplane.admission import kubernetes
from airflow_llmtune.controlplane.admission.apps import admit_apps
from airflow_llmtune.controlplane.admission.experiment import (
    INJECTION_LABEL,
    default_experiment,
    validate_experiment,
)
from airflow_llmtune.controlplane.admission.http_route import admit_http_route
from airflow_llmtune.controlplane.admission.pod import mutate_pod
from airflow_llmtune.controlplane.admission.serving import admit_serving
from airflow_llmtune.controlplane.admission.storage_initializer import inject_model
from airflow_llmtune.controlplane.admission.training import admit_training
from airflow_llmtune.controlplane.admission.trial_template import TemplateSourceError
from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EXPERIMENT,
    HTTP_ROUTE,
    JOB,
    PERSISTENT_VOLUME,
    POD,
    Kind,
)
from airflow_llmtune.controlplane.go_text import go_value

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.store import Store

Object = dict[str, Any]


class KatibAdmission:
    """Takes the store, not the registry: the registry needs its admission first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kinds = KindCatalog(store)

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
        if kind == HTTP_ROUTE:
            admit_http_route(obj)
        if operation == "CREATE":
            self._admit_workload(kind, obj, namespace)
        elif kind == JOB and old is not None:
            kubernetes.check_job_update(obj, old)
        admit_apps(kind, obj)
        admit_training(kind, obj, old, self._find)
        admit_serving(kind, obj, old, self._all_of)
        return obj

    def _admit_experiment(self, obj: Object, old: Object | None, namespace: Object | None) -> Object:
        if "deletionTimestamp" in obj["metadata"]:
            return obj  # Only finalizers change now, and a namespace being deleted may have lost its label.
        experiment = default_experiment(obj)
        validate_experiment(experiment, old, namespace, self._config_map_text, self._volume_exists)
        return experiment

    def _admit_workload(self, kind: Kind, obj: Object, namespace: Object | None) -> None:
        if kind == POD:
            kubernetes.check_pod(obj)
            labels = (namespace or {}).get("metadata", {}).get("labels", {})
            if labels.get(INJECTION_LABEL) == "enabled":
                mutate_pod(obj, self._find, self._kinds.find)
                kubernetes.check_pod(obj)  # Once more: a custom collector is as its author wrote it.
            inject_model(obj, self._find)
            kubernetes.default_pod(obj)
        elif kind == JOB:
            kubernetes.admit_job(obj)

    def _find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        entry = self._store.get(kind, namespace if kind.namespaced else "", name)
        return None if entry is None else entry.copy()

    def _all_of(self, kind: Kind, namespace: str) -> list[Object]:
        return [entry.copy() for entry in self._store.scan(kind, namespace)]

    def _config_map_text(self, source: dict[str, str]) -> str:
        name, path = source["configMapName"], source["templatePath"]
        found = self._find(CONFIG_MAP, source["configMapNamespace"], name)
        if found is None:
            raise TemplateSourceError(f'configMap not found: ConfigMap "{name}" not found')
        data = found.get("data") or {}
        if path not in data:
            shown = f"TemplatePath: {path}, ConfigMap: {go_value(data)}"
            raise TemplateSourceError(f"unable to find trial template in ConfigMap: {shown}")
        return str(data[path])

    def _volume_exists(self, name: str) -> bool:
        return self._store.get(PERSISTENT_VOLUME, "", name) is not None
