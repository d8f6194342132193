"""Katib's pod webhook: makes the pods of a Trial report their metrics.

Differs from Katib: the entrypoint of an image is not known here, so a primary container must have a ``command``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from airflow_llmtune.controlplane.admission.experiment_defaults import DEFAULT_FILE_PATH
from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.apiserver.kinds import TRIAL, Kind, find_kind
from airflow_llmtune.controlplane.controllers.observation import wanted_metrics

Object = dict[str, Any]
FindObject = Callable[[Kind, str, str], Object | None]

WEBHOOK = "mutator.pod.katib.kubeflow.org"
TRIAL_LABEL = "katib.kubeflow.org/trial"
TRIAL_NAME_VARIABLE = "KATIB_TRIAL_NAME"
COLLECTOR_CONTAINER = "metrics-logger-and-collector"
COLLECTOR_IMAGE = "kubeflow/katib/file-metrics-collector:v0.19.0"
VOLUME = "metrics-volume"

_DB_MANAGER = "katib-db-manager.kubeflow:6789"
_COLLECTOR_RESOURCES = {
    "limits": {"cpu": "500m", "ephemeral-storage": "5Gi", "memory": "100Mi"},
    "requests": {"cpu": "50m", "ephemeral-storage": "500Mi", "memory": "10Mi"},
}


def mutate_pod(pod: Object, find: FindObject) -> Object:
    """Change a pod that belongs to a Trial; any other is left as it is."""
    trial = _owning_trial(pod, find)
    if trial is None:
        return pod
    spec, metadata = trial["spec"], pod["metadata"]
    own_labels = dict(metadata.get("labels") or {})
    metadata["labels"] = {
        **own_labels,
        **trial["metadata"].get("labels", {}),
        TRIAL_LABEL: trial["metadata"]["name"],
    }
    primary = _primary_container(pod, spec["primaryContainerName"])
    _add_trial_name(primary)
    wanted = spec.get("primaryPodLabels") or {}
    if wanted.items() <= own_labels.items():
        _inject(pod, primary, trial)
    return pod


def _owning_trial(obj: Object, find: FindObject) -> Object | None:
    """The Trial among the object's ancestors."""
    namespace = obj["metadata"]["namespace"]
    for reference in obj["metadata"].get("ownerReferences") or ():
        # Incomplete references are refused later, with all other mistakes in the metadata.
        kind = find_kind(reference.get("apiVersion", ""), reference.get("kind", ""))
        owner = find(kind, namespace, reference.get("name", "")) if kind is not None else None
        if owner is None or owner["metadata"]["uid"] != reference.get("uid"):
            continue
        trial = owner if kind == TRIAL else _owning_trial(owner, find)
        if trial is not None:
            return trial
    return None


def _primary_container(pod: Object, name: str) -> Object:
    containers: list[Object] = pod["spec"]["containers"]
    for container in containers:
        if container["name"] == name:
            return container
    known = [container["name"] for container in containers]
    raise denied_by_webhook(WEBHOOK, f"Unable to find primary container {name} in mutated pod containers {known}")


def _add_trial_name(container: Object) -> None:
    field = f"metadata.labels['{TRIAL_LABEL}']"
    variable = {"name": TRIAL_NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": field}}}
    container["env"] = [*(container.get("env") or ()), variable]


def _inject(pod: Object, primary: Object, trial: Object) -> None:
    collector = trial["spec"]["metricsCollector"]
    path = metrics_path(collector)
    folder = str(PurePosixPath(path).parent)
    mount = {"name": VOLUME, "mountPath": folder}
    _wrap_command(primary, collector["collector"]["kind"], path, folder)
    primary["volumeMounts"] = [*(primary.get("volumeMounts") or ()), mount]
    pod["spec"]["containers"].append(
        {
            "name": COLLECTOR_CONTAINER,
            "image": COLLECTOR_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": _collector_args(trial, path),
            "resources": _COLLECTOR_RESOURCES,
            "volumeMounts": [mount],
        }
    )
    pod["spec"]["shareProcessNamespace"] = True
    pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or ()), {"name": VOLUME, "emptyDir": {}}]


def metrics_path(collector: Object) -> str:
    path = collector.get("source", {}).get("fileSystemPath", {}).get("path")
    return str(path or DEFAULT_FILE_PATH)


def _wrap_command(container: Object, collector_kind: str, path: str, folder: str) -> None:
    """Words are joined by spaces without quoting, as upstream: a shell reads them again."""
    if not container.get("command"):
        text = (
            f"container {container['name']} has no command: the entrypoint of image "
            f"{container.get('image', '')} is not known here, set command explicitly"
        )
        raise denied_by_webhook(WEBHOOK, text)
    words = [*container["command"], *(container.get("args") or ())]
    shell = ["sh", "-c"]
    if len(words) > 1 and words[0] in {"sh", "bash"} and words[1] == "-c":
        shell, words = words[:2], words[2:]
    redirect = f" 1>{path} 2>&1" if collector_kind == "StdOut" else ""
    # Four dollars are two after Kubernetes' own expansion: the shell's process number.
    script = f"{' '.join(words)}{redirect} && echo completed > {folder}/$$$$.pid"
    container["command"], container["args"] = shell, [script]


def _collector_args(trial: Object, path: str) -> list[str]:
    objective, collector = trial["spec"]["objective"], trial["spec"]["metricsCollector"]
    args = ["-t", trial["metadata"]["name"], "-m", ";".join(wanted_metrics(objective))]
    args += ["-o-type", objective["type"], "-s-db", _DB_MANAGER, "-path", path]
    source = collector.get("source", {})
    filters = source.get("filter", {}).get("metricsFormat")
    if filters:
        args += ["-f", ";".join(filters)]
    return [*args, "-format", source.get("fileSystemPath", {}).get("format") or "TEXT"]
