"""What a predictor is made of: its runtime, looked up, and the pod's spec with the models it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.inference_service import storage_uri
from airflow_llmtune.controlplane.admission.serving_names import predictor_name
from airflow_llmtune.controlplane.admission.storage_initializer import inject_models
from airflow_llmtune.controlplane.admission.storage_uris import unsupported
from airflow_llmtune.controlplane.apiserver.kinds import CLUSTER_SERVING_RUNTIME, SERVING_RUNTIME, Kind
from airflow_llmtune.controlplane.controllers.inference_service_parts import own_metadata
from airflow_llmtune.controlplane.controllers.predictor_pod import pod_spec
from airflow_llmtune.controlplane.controllers.serving_runtimes import Runtime, select

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]


class StorageError(Exception):
    """The models cannot come from where they are said to be."""


@dataclass(frozen=True)
class Parts:
    name: str
    """Of the Deployment and the Service, or of the revisions."""
    own: Object
    """Namespace, labels and annotations."""
    spec: Object
    runtime: Runtime | None


def parts(registry: Registry, service: Object, predictor: Object, *, with_uris: bool = True) -> Parts:
    """Raises InvalidSpecError, StorageError, and ApiError for credentials that are not there.

    A canary's ``storageUris`` are not fetched (``with_uris``), as in KServe.
    """
    namespace = service["metadata"]["namespace"]
    uri = storage_uri(predictor)
    complaint = "" if uri is None else unsupported(uri)
    if complaint:
        raise StorageError(f"StorageURI not supported: {complaint}")
    runtime = None
    if predictor.get("model") is not None:
        runtimes, _ = registry.list(SERVING_RUNTIME, namespace)
        cluster_runtimes, _ = registry.list(CLUSTER_SERVING_RUNTIME)
        runtime = select(predictor["model"], runtimes, cluster_runtimes)
    spec = pod_spec(service, predictor, runtime)
    own = own_metadata(service, predictor, runtime, uri)
    if with_uris and predictor.get("storageUris"):

        def find(kind: Kind, namespace: str, name: str) -> Object | None:
            return registry.find(kind, namespace, name)

        inject_models(spec, predictor["storageUris"], namespace, own["annotations"], find)
    return Parts(predictor_name(service["metadata"]["name"], predictor.get("name")), own, spec, runtime)


def set_runtime(status: Object, runtime: Runtime | None) -> None:
    """In the status; a predictor with containers of its own has none."""
    if runtime is not None:
        names = ("clusterServingRuntimeName", "servingRuntimeName")
        own, other = names if runtime.is_cluster_wide else names[::-1]
        status[own] = runtime.name
        status.pop(other, None)
