"""The pod in which the trainer runs. Trials and final runs are made here; they differ in values only."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.resources.checkpoints import GRACE_SECONDS
from airflow_llmtune.resources.defaults import TRAINER_VERSION
from airflow_llmtune.resources.pod_override import merge
from airflow_llmtune.resources.source import mount_path
from airflow_llmtune.resources.trainer_flags import is_of_trainer

if TYPE_CHECKING:
    from airflow_llmtune.resources.trainer_spec import TrainerSpec

__all__ = ["Flag", "job_manifest", "literal"]

_MODULE = "llmtune_trainer"
_TERMINATION_LOG = "/dev/termination-log"
# Katib waits for a pod's end; a service mesh's sidecar would never let it come.
_ANNOTATIONS = {"sidecar.istio.io/inject": "false"}


class Flag(NamedTuple):
    """One setting of the trainer, in the arguments or in the environment.

    Katib joins a trial's command unquoted into a shell line, so a value that a shell would change goes by the
    environment.
    """

    name: str
    text: str
    shell_safe: bool

    @property
    def argument(self) -> str:
        return f"--{self.name}={self.text}"

    @property
    def variable(self) -> str:
        return f"LLMTUNE_{self.name.upper()}"


def literal(name: str, text: str) -> Flag:
    if shlex.quote(text) == text:
        return Flag(name, text, True)
    return Flag(name, text.replace("$", "$$"), False)  # Kubernetes expands $(NAME) in a variable's value


def job_manifest(
    spec: TrainerSpec,
    flags: Iterable[Flag],
    annotations: Mapping[str, str],
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole job; ``annotations`` are the pod's, and without ``metadata`` it is the spec of a trial."""
    template = merge(_pod_template(spec, list(flags), annotations), spec.pod_template)
    common: dict[str, Any] = {"active_deadline_seconds": spec.active_deadline_seconds, "metadata": metadata}
    nodes: dict[str, Any] = {"num_nodes": spec.num_nodes, "num_procs_per_node": spec.num_procs_per_node}
    if spec.job_kind == train_job.KIND.kind:
        return train_job.to_manifest(
            template, runtime=spec.runtime_ref, version=spec.kubeflow_trainer_version, **nodes, **common
        )
    common["ttl_seconds_after_finished"] = spec.ttl_seconds_after_finished
    if spec.job_kind == pytorch_job.KIND.kind:
        return pytorch_job.to_manifest(template, **nodes, **common)
    return job.to_manifest(template, **common)


def _pod_template(spec: TrainerSpec, flags: list[Flag], annotations: Mapping[str, str]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": spec.primary_container,
        "image": spec.image,
        "command": _command(spec),
        "args": [flag.argument for flag in flags if flag.shell_safe],
        "env": _env(spec, [flag for flag in flags if not flag.shell_safe]),
        "terminationMessagePath": _TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    if spec.resources:
        container["resources"] = {"requests": dict(spec.resources), "limits": dict(spec.resources)}
    if spec.service_account_name is not None:
        pod["serviceAccountName"] = spec.service_account_name
    if spec.saves_checkpoints:
        pod["terminationGracePeriodSeconds"] = GRACE_SECONDS
    if spec.claims:
        volumes = [(f"claim-{index}", claim) for index, claim in enumerate(sorted(spec.claims))]
        pod["volumes"] = [{"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in volumes]
        container["volumeMounts"] = [
            # Katib refuses a trial's Job that says what is the default.
            {"name": volume, "mountPath": mount_path(claim), **({} if spec.claims[claim] else {"readOnly": True})}
            for volume, claim in volumes
        ]
    if spec.cache is not None:
        spec.cache.mount(pod, container)
    return {"metadata": {"annotations": {**_ANNOTATIONS, **annotations}}, "spec": pod}


def _command(spec: TrainerSpec) -> list[str]:
    # Written out: for an image's own entry point Katib's webhook would have to ask the registry.
    module = ["-m", _MODULE, *(["evaluate"] if spec.evaluates else [])]
    if spec.job_kind != job.KIND.kind:
        return ["torchrun", *module]  # PET_* variables tell it nodes, processes and the address
    if spec.num_procs_per_node > 1:
        return ["torchrun", "--standalone", f"--nproc_per_node={spec.num_procs_per_node}", *module]
    return ["python", *module]


def _env(spec: TrainerSpec, flags: list[Flag]) -> list[dict[str, Any]]:
    env: dict[str, str | Mapping[str, Any]] = {
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait take the cores from the other trials of a node.
        "OMP_WAIT_POLICY": "PASSIVE",
        "LLMTUNE_TERMINATION_LOG": _TERMINATION_LOG,
    }
    if is_of_trainer(spec.image):
        env["LLMTUNE_TRAINER_VERSION"] = TRAINER_VERSION  # another one may not know what it is asked for
    if spec.threads is not None:
        # torch counts the cores of the node, not those that the pod may use.
        env["OMP_NUM_THREADS"] = str(spec.threads)
    env |= spec.env
    env |= {flag.variable: flag.text for flag in flags}
    return [_variable(name, value) for name, value in env.items()]


def _variable(name: str, value: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, str):
        return {"name": name, "valueFrom": dict(value)}
    # Katib refuses a trial with an empty text; a variable without a value is empty as well.
    return {"name": name, "value": value} if value else {"name": name}
