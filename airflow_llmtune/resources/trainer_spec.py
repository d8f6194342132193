"""What runs the trainer, checked: sources, settings, resources, environment and the kind of job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.resources import job, pytorch_job
from airflow_llmtune.resources.environment import read_env, refuse_secret
from airflow_llmtune.resources.meta import Problems, did_you_mean, text_of
from airflow_llmtune.resources.pod_override import check_override
from airflow_llmtune.resources.redaction import is_secret
from airflow_llmtune.resources.source import Source

__all__ = ["OUTPUT_FLAG", "RESERVED_FLAGS", "TRAINER_IMAGE", "TrainerSpec", "read_flags", "read_options"]

# The trainer and this provider are released together.
TRAINER_VERSION = "0.1.0"
TRAINER_IMAGE = f"airflow-llmtune/trainer:{TRAINER_VERSION}"

OUTPUT_FLAG = "output_dir"
# Flags that follow from arguments of their own.
RESERVED_FLAGS = {
    "model_name_or_path": "model",
    "model_revision": "model",
    "dataset_name": "dataset",
    OUTPUT_FLAG: "output_uri",
}
_JOB_KINDS = (job.KIND.kind, pytorch_job.KIND.kind)
# Six hours. Without a deadline an image that cannot be pulled keeps its trial and the task waiting for ever.
_DEADLINE = 6 * 60 * 60
_TTL = 24 * 60 * 60
# A task that waits for a worker, and Katib, which starts a trial again whose job is gone, must still find the end.
_LEAST_TTL = 60 * 60

_FLAG_NAME = re.compile(r"[a-z][a-z0-9_]*")
_QUANTITY = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+)(?P<unit>m|[kMGTPE]|[KMGTPE]i|[eE]\d+)?")
_UNITS = {"": 1.0, "m": 1e-3} | {
    prefix + suffix: base**power
    for suffix, base in (("", 1000.0), ("i", 1024.0))
    for power, prefix in enumerate("kMGTPE" if not suffix else "KMGTPE", 1)
}
_RESOURCES = ("cpu", "memory", "gpu", "ephemeral-storage")


@dataclass(frozen=True)
class TrainerSpec:
    """Everything of a trainer run but its hyperparameters."""

    image: str
    job_kind: str
    flags: Mapping[str, str]
    output: Source | None
    claims: Mapping[str, bool]  # persistent volume claim: may the trainer write to it?
    resources: Mapping[str, str]
    threads: int | None
    env: Mapping[str, str | Mapping[str, Any]]
    num_nodes: int
    num_procs_per_node: int
    service_account_name: str | None
    active_deadline_seconds: int
    ttl_seconds_after_finished: int | None
    pod_template: Mapping[str, Any]

    @classmethod
    def from_args(
        cls,
        *,
        model: Any,
        dataset: Any,
        image: Any = TRAINER_IMAGE,
        trainer_args: Any = None,
        resources: Any = None,
        env: Any = None,
        num_nodes: Any = 1,
        num_procs_per_node: Any = 1,
        job_kind: Any = None,
        service_account_name: Any = None,
        active_deadline_seconds: Any = _DEADLINE,
        ttl_seconds_after_finished: Any = _TTL,
        output_uri: Any = None,
        pod_template: Any = None,
        resources_argument: str = "resources",
        problems: Problems,
    ) -> TrainerSpec:
        """Note every mistake in ``problems``; the spec returned is good only when there is none."""
        given_options = {
            "job_kind": job_kind,
            "num_nodes": num_nodes,
            "num_procs_per_node": num_procs_per_node,
            "service_account_name": service_account_name,
            "active_deadline_seconds": active_deadline_seconds,
            "ttl_seconds_after_finished": ttl_seconds_after_finished,
            "pod_template": pod_template,
        }
        options = {**_DEFAULTS, **_read_job("", given_options, problems)}
        base = Source.read("model", model, problems, revision=True)
        data = Source.read("dataset", dataset, problems)
        output = None if output_uri is None else Source.read("output_uri", output_uri, problems, hub=False)
        if not isinstance(image, str) or not image or image != image.strip():
            problems.add("image", image, "is not an image name", f"give one, or leave it out for {TRAINER_IMAGE}")
        limits = _read_resources(resources_argument, resources, problems)
        cpus = _quantity(limits.get("cpu", ""))
        return cls(
            image=image,
            flags=_source_flags(base, data) | read_flags("trainer_args", trainer_args, problems),
            output=output,
            claims=_claims(base, data, output),
            resources=limits,
            threads=None if cpus is None else max(1, int(cpus / options["num_procs_per_node"])),
            env=read_env(env, problems),
            **options,
        )

    @property
    def primary_container(self) -> str:
        return _primary_container(self.job_kind)


def _source_flags(model: Source | None, dataset: Source | None) -> dict[str, str]:
    flags = {}
    if model is not None:
        flags["model_name_or_path"] = model.flag
        if model.revision is not None:
            flags["model_revision"] = model.revision
    if dataset is not None:
        flags["dataset_name"] = dataset.flag
    return flags


def _claims(model: Source | None, dataset: Source | None, output: Source | None) -> dict[str, bool]:
    claims = {source.claim: False for source in (model, dataset) if source is not None and source.claim}
    if output is not None and output.claim:
        claims[output.claim] = True
    return claims


# --- settings of the trainer --------------------------------------------------------------------------------


def read_flags(argument: str, given: Any, problems: Problems, *, none_is_default: bool = True) -> dict[str, str]:
    """Settings as the texts that the trainer casts again; None leaves a setting to the trainer, or is a mistake."""
    flags = {}
    for name, value in problems.mapping(argument, given).items():
        where = f"{argument}.{name}"
        if not _FLAG_NAME.fullmatch(name):
            problems.add(where, name, "is not a setting's name", "use a-z, 0-9 and `_`, starting with a letter")
        elif name in RESERVED_FLAGS:
            problems.add(where, value, "has an argument of its own", f"use `{RESERVED_FLAGS[name]}`")
        elif is_secret(name, value):
            refuse_secret(where, value, problems)
        elif value is None and not none_is_default:
            problems.add(where, value, "has no value", "did the upstream task return it?")
        elif value is not None and (text := _flag_text(where, value, problems)) is not None:
            flags[name] = text
    return flags


def _flag_text(where: str, value: Any, problems: Problems) -> str | None:
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | bool | int | float) for item in items):
        problems.add(where, value, "is not a text, number, boolean or list of these", "give a plain value")
        return None
    texts = [text_of(item) for item in items]
    if len(texts) > 1 and any("," in text for text in texts):
        problems.add(where, value, "has a comma inside an item of the list", "give items without commas")
    text = ",".join(texts)
    if "${trialParameters" in text or "\0" in text:
        problems.add(where, value, "contains what Katib would replace", "search the setting in `parameters`")
    return text


# --- resources ----------------------------------------------------------------------------------------------


def _read_resources(argument: str, given: Any, problems: Problems) -> dict[str, str]:
    limits = {}
    for name, value in problems.mapping(argument, given).items():
        where = f"{argument}.{name}"
        text = text_of(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        amount = _quantity(text)
        if "/" not in name and name not in _RESOURCES:
            problems.add(where, value, "is not known", did_you_mean(name, _RESOURCES))
        elif amount is None or amount <= 0:
            problems.add(where, value, "is not a quantity above 0", "give such as 2, '500m' or '4Gi'")
        elif name == "memory" and amount < 1024**2:
            problems.add(where, value, "is less than a mebibyte: it counts bytes", "give a unit, such as '4Gi'")
        elif (name == "gpu" or "/" in name) and not amount.is_integer():
            problems.add(where, value, "is not a whole number", "give such as 1")
        else:
            limits["nvidia.com/gpu" if name == "gpu" else name] = text
    return limits


def _quantity(text: str) -> float | None:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return None
    unit = found["unit"] or ""
    return float(found["number"]) * (10.0 ** int(unit[1:]) if unit[:1] in ("e", "E") and unit[1:] else _UNITS[unit])


# --- the job ------------------------------------------------------------------------------------------------

_DEFAULTS: Mapping[str, Any] = {
    "job_kind": "Job",
    "num_nodes": 1,
    "num_procs_per_node": 1,
    "service_account_name": None,
    "active_deadline_seconds": _DEADLINE,
    "ttl_seconds_after_finished": _TTL,
    "pod_template": {},
}


def read_options(argument: str, given: Any, problems: Problems) -> dict[str, Any]:
    """The job's options out of one mapping argument, to be passed to ``TrainerSpec.from_args``."""
    options = problems.mapping(argument, given)
    for name in (name for name in options if name not in _DEFAULTS):
        problems.add(f"{argument}.{name}", options[name], "is not known", did_you_mean(name, _DEFAULTS))
    return _read_job(f"{argument}.", {name: options[name] for name in options if name in _DEFAULTS}, problems)


def _read_job(prefix: str, given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The sound ones of the given options; so reading them a second time finds no mistake twice."""
    sound: dict[str, Any] = {}
    for name, value in given.items():
        read = _read_option(f"{prefix}{name}", name, value, problems)
        if read is not None or value is None:
            sound[name] = _DEFAULTS[name] if read is None and name != "ttl_seconds_after_finished" else read
    if sound.get("num_nodes", 1) > 1 and given.get("job_kind") == "Job":
        rule = "is more than a Job can run together"
        problems.add(f"{prefix}num_nodes", given["num_nodes"], rule, "give job_kind='PyTorchJob', or one node")
        del sound["num_nodes"]
    elif sound.get("num_nodes", 1) > 1:
        sound["job_kind"] = "PyTorchJob"
    if sound.get("pod_template"):
        before = len(problems.errors)
        primary = _primary_container(sound.get("job_kind", "Job"))
        check_override(f"{prefix}pod_template", sound["pod_template"], primary, problems)
        if len(problems.errors) > before:
            del sound["pod_template"]
    return sound


def _primary_container(job_kind: str) -> str:
    return pytorch_job.CONTAINER if job_kind == pytorch_job.KIND.kind else job.CONTAINER


def _read_option(where: str, name: str, value: Any, problems: Problems) -> Any:
    if value is None:
        return None
    if name == "job_kind":
        return problems.choice(where, value, _JOB_KINDS)
    if name == "pod_template":
        return problems.mapping(where, value)
    if name == "service_account_name":
        if isinstance(value, str) and value:
            return value
        problems.add(where, value, "is not a name", "give the service account's name, or leave it out")
        return None
    if name == "ttl_seconds_after_finished":
        return _read_ttl(where, value, problems)
    return problems.integer(where, value, at_least=1)


def _read_ttl(where: str, value: Any, problems: Problems) -> int | None:
    seconds = problems.integer(where, value)
    if seconds is not None and seconds < _LEAST_TTL:
        rule = f"is less than {_LEAST_TTL}: the job may be gone before a worker has read its end"
        problems.add(where, value, rule, f"give {_LEAST_TTL} or more, or None for no limit")
        return None
    return seconds
