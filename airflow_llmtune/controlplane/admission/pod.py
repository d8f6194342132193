"""Katib's pod webhook: makes the pods of a Trial report their metrics.

Differs from Katib: the entrypoint of an image is not known here, so a primary container must have a ``command``; and
a volume cannot be mounted at ``/``, so neither may metrics be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from airflow_llmtune.controlplane.admission.experiment_defaults import DEFAULT_FILE_PATH
from airflow_llmtune.controlplane.admission.wrapped_command import clean_path, wrap_command
from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.apiserver.kinds import SUGGESTION, TRIAL, Kind
from airflow_llmtune.controlplane.controllers.observation import wanted_metrics

Object = dict[str, Any]
FindObject = Callable[[Kind, str, str], Object | None]
FindKind = Callable[[str, str], Kind | None]

WEBHOOK = "mutator.pod.katib.kubeflow.org"
TRIAL_LABEL = "katib.kubeflow.org/trial"
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
TRIAL_NAME_VARIABLE = "KATIB_TRIAL_NAME"
METRICS_VOLUME, SUGGESTION_VOLUME = "metrics-volume", "suggestion-volume"
DB_MANAGER = "katib-db-manager.kubeflow:6789"

_LOGGING_NAME, _COLLECTOR_NAME = "metrics-logger-and-collector", "metrics-collector"
_FILE_IMAGE = "kubeflow/katib/file-metrics-collector:v0.19.0"
_EVENT_IMAGE = "kubeflow/katib/tfevent-metrics-collector:v0.19.0"
_SHARED_FOLDER_SETTING = "suggestion_trial_dir"
_EARLY_STOPPING_PORT = 6788


def mutate_pod(pod: Object, find: FindObject, find_kind: FindKind) -> Object:
    """Change a pod that belongs to a Trial; any other is left as it is."""
    trial = _owning_trial(pod, find, find_kind)
    if trial is None:
        return pod
    spec, metadata = trial["spec"], pod["metadata"]
    own_labels = dict(metadata.get("labels") or {})
    metadata["labels"] = {
        **own_labels,
        **(trial["metadata"].get("labels") or {}),
        TRIAL_LABEL: trial["metadata"]["name"],
    }
    primary = _primary_container(pod, spec["primaryContainerName"])
    _add_trial_name(primary)
    wanted = spec.get("primaryPodLabels") or {}
    if wanted.items() <= own_labels.items() and _kind(trial) != "Push":
        _inject(pod, primary, trial, _suggestion(trial, find))
    return pod


def _owning_trial(obj: Object, find: FindObject, find_kind: FindKind) -> Object | None:
    """The Trial among the object's ancestors."""
    namespace = obj["metadata"]["namespace"]
    for reference in obj["metadata"].get("ownerReferences") or ():
        # Incomplete references are refused later, with all other mistakes in the metadata.
        kind = find_kind(reference.get("apiVersion", ""), reference.get("kind", ""))
        owner = find(kind, namespace, reference.get("name", "")) if kind is not None else None
        if owner is None or owner["metadata"]["uid"] != reference.get("uid"):
            continue
        trial = owner if kind == TRIAL else _owning_trial(owner, find, find_kind)
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


def _kind(trial: Object) -> str:
    return str(trial["spec"]["metricsCollector"]["collector"]["kind"])


def _suggestion(trial: Object, find: FindObject) -> Object | None:
    metadata = trial["metadata"]
    return find(SUGGESTION, metadata["namespace"], (metadata.get("labels") or {}).get(EXPERIMENT_LABEL, ""))


def _inject(pod: Object, primary: Object, trial: Object, suggestion: Object | None) -> None:
    kind, folder = _kind(trial), metrics_folder(trial["spec"]["metricsCollector"])
    if kind == "Custom":
        sidecar = dict(trial["spec"]["metricsCollector"]["collector"]["customCollector"])
    else:
        sidecar = _sidecar(trial, suggestion)
    pod["spec"]["containers"].append(sidecar)
    if suggestion is not None:
        _mount_shared_folder(pod, primary, trial, suggestion)
    pod["spec"]["shareProcessNamespace"] = True
    if folder is not None:
        _mount(pod, {"name": METRICS_VOLUME, "emptyDir": {}}, {"mountPath": folder}, sidecar, primary)
    if kind != "Custom" and folder is not None:
        if not primary.get("command"):
            text = (
                f"container {primary['name']} has no command: the entrypoint of image "
                f"{primary.get('image', '')} is not known here, set command explicitly"
            )
            raise denied_by_webhook(WEBHOOK, text)
        output = DEFAULT_FILE_PATH if kind == "StdOut" else None
        can_stop = trial["spec"].get("earlyStoppingRules") is not None
        wrap_command(primary, folder, output=output, can_stop=can_stop)


def metrics_folder(collector: Object) -> str | None:
    """Where the metrics volume is mounted; None when a custom collector asks for none."""
    path, is_file = _metrics_path(collector)
    if path is None:
        return None
    folder = clean_path(str(PurePosixPath(path).parent) if is_file else path)
    if folder == "/":
        text = f"metrics collector path {path}: its volume cannot be mounted at /, use a file in a folder of its own"
        raise denied_by_webhook(WEBHOOK, text)
    return folder if is_file else path


def _metrics_path(collector: Object) -> tuple[str | None, bool]:
    """The path and whether it is a file's, not a folder's. The output has a fixed place, whatever the source says."""
    place = collector.get("source", {}).get("fileSystemPath", {})
    match collector["collector"]["kind"]:
        case "StdOut":
            return DEFAULT_FILE_PATH, True
        case "Custom":
            return place.get("path") or None, place.get("kind") == "File"
        case kind:
            return str(place["path"]), kind == "File"


def _sidecar(trial: Object, suggestion: Object | None) -> Object:
    shows_log = _kind(trial) in {"StdOut", "File"}
    memory = "100Mi" if shows_log else "1Gi"
    return {
        "name": _LOGGING_NAME if shows_log else _COLLECTOR_NAME,
        "image": _FILE_IMAGE if shows_log else _EVENT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": _collector_args(trial, suggestion),
        "resources": {
            "limits": {"cpu": "500m", "ephemeral-storage": "5Gi", "memory": memory},
            # A function of the control plane: with Katib's 50m two trials of one CPU would not fit on two CPUs.
            "requests": {"cpu": "0", "ephemeral-storage": "0", "memory": "0"},
        },
    }


def _collector_args(trial: Object, suggestion: Object | None) -> list[str]:
    """The stock configuration does not say which processes to wait for, so there is no ``-w``."""
    objective, collector = trial["spec"]["objective"], trial["spec"]["metricsCollector"]
    kind, source = _kind(trial), collector.get("source", {})
    path, _ = _metrics_path(collector)
    args = ["-t", trial["metadata"]["name"], "-m", ";".join(wanted_metrics(objective))]
    args += ["-o-type", objective["type"], "-s-db", DB_MANAGER, "-path", str(path)]
    filters = source.get("filter", {}).get("metricsFormat")
    if filters:
        args += ["-f", ";".join(filters)]
    if kind == "StdOut":
        args += ["-format", "TEXT"]
    elif kind == "File":
        args += ["-format", source["fileSystemPath"].get("format") or "TEXT"]
    return [*args, *_stop_args(trial, suggestion)]


def _stop_args(trial: Object, suggestion: Object | None) -> list[str]:
    rules = trial["spec"].get("earlyStoppingRules") or ()
    if not rules:
        return []
    if suggestion is None:
        name = (trial["metadata"].get("labels") or {}).get(EXPERIMENT_LABEL, "")
        raise denied_by_webhook(WEBHOOK, f'invalid suggestion name: Suggestion.kubeflow.org "{name}" not found')
    flags: list[str] = []
    for rule in rules:
        flags += ["-stop-rule", f"{rule['name']};{rule['value']};{rule['comparison']};{rule.get('startStep') or 0}"]
    metadata = suggestion["metadata"]
    return [*flags, "-s-earlystop", f"{_service_name(suggestion)}.{metadata['namespace']}:{_EARLY_STOPPING_PORT}"]


def _service_name(suggestion: Object) -> str:
    """Also that of the Suggestion's volume claim."""
    return f"{suggestion['metadata']['name']}-{suggestion['spec']['algorithm']['algorithmName']}"


def _mount_shared_folder(pod: Object, primary: Object, trial: Object, suggestion: Object) -> None:
    """Population based training hands checkpoints from Trial to Trial on the Suggestion's volume."""
    settings = suggestion["spec"]["algorithm"].get("algorithmSettings") or ()
    path = next((one["value"] for one in settings if one["name"] == _SHARED_FOLDER_SETTING and one["value"]), None)
    if path is not None:
        volume = {"name": SUGGESTION_VOLUME, "persistentVolumeClaim": {"claimName": _service_name(suggestion)}}
        folder = f"{suggestion['metadata']['name']}/{trial['metadata']['name']}"
        _mount(pod, volume, {"mountPath": path, "subPath": folder}, primary)


def _mount(pod: Object, volume: Object, place: Object, *containers: Object) -> None:
    pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or ()), volume]
    for container in containers:
        mount = {"name": volume["name"], **place}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
