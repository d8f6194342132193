"""The kind of job that runs the trainer, and its options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.resources.pod_override import check_override
from airflow_llmtune.resources.problems import did_you_mean
from airflow_llmtune.resources.runtime_patch import FIRST_WITH_DEADLINE, LATEST, check_pod_template, read_version
from airflow_llmtune.resources.shape import check_plain

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["DEFAULTS", "PRIMARY_CONTAINERS", "read_job", "read_options"]

PRIMARY_CONTAINERS: Mapping[str, str] = {
    job.KIND.kind: job.CONTAINER,
    pytorch_job.KIND.kind: pytorch_job.CONTAINER,
    train_job.KIND.kind: train_job.CONTAINER,
}

# Six hours. Without a deadline an image that cannot be pulled keeps its trial and the task waiting for ever.
_DEADLINE = 6 * 60 * 60
_TTL = 24 * 60 * 60
# A task that waits for a worker, and Katib, which starts a trial again whose job is gone, must still find the end.
_LEAST_TTL = 60 * 60

DEFAULTS: Mapping[str, Any] = {
    "job_kind": job.KIND.kind,
    "num_nodes": 1,
    "num_procs_per_node": None,  # one for each GPU
    "service_account_name": None,
    "active_deadline_seconds": _DEADLINE,
    "ttl_seconds_after_finished": _TTL,
    "pod_template": {},
    "runtime_ref": train_job.runtime_ref(train_job.DEFAULT_RUNTIME),
    "kubeflow_trainer_version": LATEST,
}
_TRAIN_JOB_ONLY = ("runtime_ref", "kubeflow_trainer_version")


def read_options(argument: str, given: Any, problems: Problems) -> dict[str, Any]:
    """The job's options out of one mapping argument, to be passed to ``TrainerSpec.from_args``."""
    options = problems.mapping(argument, given)
    for name in (name for name in options if name not in DEFAULTS):
        problems.add(f"{argument}.{name}", options[name], "is not known", did_you_mean(name, DEFAULTS))
    return read_job(f"{argument}.", {name: options[name] for name in options if name in DEFAULTS}, problems)


def read_job(prefix: str, given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The sound ones of the given options; so reading them a second time finds no mistake twice."""
    sound: dict[str, Any] = {}
    for name, value in given.items():
        read = _read_option(f"{prefix}{name}", name, value, problems)
        # None is left out, and so becomes the default; but a job may do without a ttl.
        if read is not None or (value is None and name == "ttl_seconds_after_finished"):
            sound[name] = read
    if given.get("job_kind") is not None and "job_kind" not in sound:
        # Without the kind that was meant, what does not fit to it cannot be told.
        return {name: value for name, value in sound.items() if name not in (*_TRAIN_JOB_ONLY, "pod_template")}
    _check_nodes(prefix, sound, problems)
    _check_train_job(prefix, sound, problems)
    if "pod_template" in sound:
        before = len(problems.errors)
        _check_pod_template(f"{prefix}pod_template", sound, problems)
        if len(problems.errors) > before:
            del sound["pod_template"]
    return sound


def _check_nodes(prefix: str, sound: dict[str, Any], problems: Problems) -> None:
    """Several nodes without a kind are a PyTorchJob."""
    if sound.get("num_nodes", 1) == 1:
        return
    if sound.get("job_kind") == job.KIND.kind:
        rule = "is more than a Job can run together"
        fix = "give job_kind='PyTorchJob' or 'TrainJob', or one node"
        problems.add(f"{prefix}num_nodes", sound.pop("num_nodes"), rule, fix)
    else:
        sound.setdefault("job_kind", pytorch_job.KIND.kind)


def _check_train_job(prefix: str, sound: dict[str, Any], problems: Problems) -> None:
    """What a TrainJob has alone, and what it has not."""
    if sound.get("job_kind", DEFAULTS["job_kind"]) != train_job.KIND.kind:
        for name in [name for name in _TRAIN_JOB_ONLY if name in sound]:
            problems.add(f"{prefix}{name}", sound.pop(name), "is of a TrainJob only", "give job_kind='TrainJob'")
        return
    if sound.get("ttl_seconds_after_finished") is not None:
        rule = "is nothing that a TrainJob has: it stays until somebody deletes it"
        ttl = sound.pop("ttl_seconds_after_finished")
        problems.add(f"{prefix}ttl_seconds_after_finished", ttl, rule, "leave it out")
    version = sound.get("kubeflow_trainer_version", LATEST)
    if "active_deadline_seconds" in sound and version < FIRST_WITH_DEADLINE:
        rule = f"is nothing that a TrainJob of Kubeflow Trainer {version} has"
        fix = "give the operator a `timeout`, which deletes the job, or use Kubeflow Trainer 2.2"
        problems.add(f"{prefix}active_deadline_seconds", sound.pop("active_deadline_seconds"), rule, fix)


def _check_pod_template(where: str, sound: Mapping[str, Any], problems: Problems) -> None:
    override, kind = sound["pod_template"], sound.get("job_kind", DEFAULTS["job_kind"])
    before = len(problems.errors)
    check = partial(check_override, where, override, PRIMARY_CONTAINERS[kind], problems)
    check_plain(where, override, check, problems)
    if kind == train_job.KIND.kind and len(problems.errors) == before:
        check_pod_template(where, override, sound.get("kubeflow_trainer_version", LATEST), problems)
        for index, container in enumerate((override.get("spec") or {}).get("containers") or []):
            names = [entry["name"] for entry in container.get("env") or []]
            train_job.check_reserved(f"{where}.spec.containers[{index}].env", names, problems)


def _read_option(where: str, name: str, value: Any, problems: Problems) -> Any:
    if value is None:
        return None
    match name:
        case "job_kind":
            return problems.choice(where, value, PRIMARY_CONTAINERS)
        case "pod_template":
            return problems.mapping(where, value)
        case "service_account_name":
            return problems.name(where, value, "give the service account's name, or leave it out")
        case "ttl_seconds_after_finished":
            return _read_ttl(where, value, problems)
        case "runtime_ref":
            return _read_runtime(where, value, problems)
        case "kubeflow_trainer_version":
            return read_version(where, value, problems)
    return problems.integer(where, value, at_least=1)


def _read_ttl(where: str, value: Any, problems: Problems) -> int | None:
    seconds = problems.integer(where, value)
    if seconds is not None and seconds < _LEAST_TTL:
        rule = f"is less than {_LEAST_TTL}: the job may be gone before a worker has read its end"
        problems.add(where, value, rule, f"give {_LEAST_TTL} or more, or None for no limit")
        return None
    return seconds


def _read_runtime(where: str, value: Any, problems: Problems) -> dict[str, str] | None:
    """A name is that of a ClusterTrainingRuntime."""
    if isinstance(value, Mapping):
        return _read_reference(where, value, problems)
    name = problems.name(where, value, "give a runtime's name, or {'kind': 'TrainingRuntime', 'name': …}")
    return None if name is None else train_job.runtime_ref(name)


def _read_reference(where: str, value: Mapping[str, Any], problems: Problems) -> dict[str, str] | None:
    known: Mapping[str, tuple[str, ...]] = {"apiGroup": (train_job.KIND.group,), "kind": train_job.RUNTIME_KINDS}
    before = len(problems.errors)
    for key in [key for key in value if key not in (*known, "name")]:
        problems.add(f"{where}.{key}", value[key], "is not known", did_you_mean(key, [*known, "name"]))
    for key, words in known.items():
        if key in value:
            problems.choice(f"{where}.{key}", value[key], words)
    problems.name(f"{where}.name", value.get("name"), "give the runtime's name")
    if len(problems.errors) > before:
        return None
    return train_job.runtime_ref(value["name"], value.get("kind", train_job.RUNTIME_KINDS[0]))
