"""The trainer as a Katib trial (placeholders) and as a final run (values)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.resources.checkpoints import PLACE_FLAG
from airflow_llmtune.resources.defaults import TRAINER_IMAGE
from airflow_llmtune.resources.job_options import read_options
from airflow_llmtune.resources.meta import metadata, text_of
from airflow_llmtune.resources.own_name import OWN_NAME
from airflow_llmtune.resources.pod import LOG_COLLECTOR
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_flags import check_parameter, is_of_trainer
from airflow_llmtune.resources.trainer_pod import Flag, job_manifest, literal
from airflow_llmtune.resources.trainer_rules import Given
from airflow_llmtune.resources.trainer_spec import (
    OUTPUT_FLAG,
    RESERVED_FLAGS,
    TrainerSpec,
    read_flags,
)

if TYPE_CHECKING:
    from airflow_llmtune.resources.search_space import Parameter, SearchSpace

__all__ = ["DIVERGED_LOSS", "TRAINER_IMAGE", "TrainerSpec", "read_options", "training_manifest", "trial_template"]

_TRIAL_NAME = "trial_name"
# A diverged trial must not fail: its huge loss tells the algorithm where not to look.
_TRIAL_FLAGS = {"on_divergence": "report"}
# What the trainer then reports as the loss.
DIVERGED_LOSS = 1e9
# How Katib finds the pod that reports the metrics, and the end of the job; a Job's pods it finds by itself.
_PRIMARY_POD_LABELS = {
    pytorch_job.KIND.kind: pytorch_job.PRIMARY_POD_LABELS,
    train_job.KIND.kind: train_job.PRIMARY_POD_LABELS,
}
_CONDITIONS = {
    job.KIND.kind: (job.SUCCESS_CONDITION, job.FAILURE_CONDITION),
    pytorch_job.KIND.kind: (pytorch_job.SUCCESS_CONDITION, pytorch_job.FAILURE_CONDITION),
    train_job.KIND.kind: (train_job.SUCCESS_CONDITION, train_job.FAILURE_CONDITION),
}
# `kubectl logs` of a trial shows the training; Katib has sent it there.
_TRIAL_ANNOTATIONS = {"kubectl.kubernetes.io/default-container": LOG_COLLECTOR}
# Where a trial pushes its metrics to; spelt out, since a control plane resolves names of Services in variables.
_PUSH_ENV = {"KATIB_DB_MANAGER": "katib-db-manager.kubeflow:6789"}


def trial_template(spec: TrainerSpec, space: SearchSpace, problems: Problems) -> dict[str, Any]:
    """Katib's ``trialTemplate``; what the two arguments make wrong together goes to ``problems``."""
    _check_searched(spec, space, problems)
    spec.check_together({each.name: _choices_of(each) for each in space.parameters}, problems)
    _check_placeholders(spec, problems)
    flags = [literal(name, text) for name, text in {**_TRIAL_FLAGS, **spec.flags}.items()]
    flags += [_searched(parameter) for parameter in space.parameters]
    parameters = [{"name": name, "reference": name} for name in space.names]
    flags += _cache_flags(spec)
    if spec.output is not None:
        folder = literal(OUTPUT_FLAG, spec.output.flag)
        # Not Katib's `${trialSpec.Labels[…]}`: the trialSpec's own labels are meant, and it has none.
        flags.append(folder._replace(text=f"{folder.text}/{OWN_NAME}/{_placeholder(_TRIAL_NAME)}"))
        parameters.append({"name": _TRIAL_NAME, "reference": "${trialSpec.Name}"})
    annotations = _TRIAL_ANNOTATIONS
    if spec.pushes_metrics:
        spec, annotations = spec._replace(env={**_PUSH_ENV, **spec.env}), {}
    success, failure = _CONDITIONS[spec.job_kind]
    template: dict[str, Any] = {
        # Pods stay until their ttl: a failed one still has to tell why.
        "retain": True,
        "primaryContainerName": spec.primary_container,
        "successCondition": success,
        "failureCondition": failure,
        "trialParameters": parameters,
        "trialSpec": job_manifest(spec, flags, annotations),
    }
    if spec.job_kind in _PRIMARY_POD_LABELS:
        template["primaryPodLabels"] = dict(_PRIMARY_POD_LABELS[spec.job_kind])
    return template


def training_manifest(
    spec: TrainerSpec,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    hyperparameters: Any,
    problems: Problems,
) -> dict[str, Any]:
    """The same trainer as one job; mistakes in ``hyperparameters`` go to ``problems``."""
    chosen = read_flags("hyperparameters", hyperparameters, problems, image=spec.image, none_is_default=False)
    spec.check_flags("hyperparameters", chosen, problems)
    for flag in sorted(chosen.keys() & spec.flags.keys()):
        rule = "is also set by `trainer_args`"
        problems.add(f"hyperparameters.{flag}", chosen[flag], rule, "leave it out of one of the two")
    found = {flag: Given(f"hyperparameters.{flag}", (text,)) for flag, text in chosen.items()}
    spec.check_together(found, problems)
    flags = [literal(flag, text) for flag, text in {**spec.flags, **chosen}.items()]
    flags += _cache_flags(spec)
    if spec.output is not None:
        flags.append(literal(OUTPUT_FLAG, spec.output.flag))
    return job_manifest(spec, flags, {}, metadata(name, namespace, labels, annotations))


def _cache_flags(spec: TrainerSpec) -> list[Flag]:
    return [] if spec.cache is None else [literal(name, text) for name, text in spec.cache.flags.items()]


def _check_searched(spec: TrainerSpec, space: SearchSpace, problems: Problems) -> None:
    for parameter in space.parameters:
        name = parameter.name
        where = f"parameters.{name}"
        if name in spec.flags:
            rule = f"is also fixed, at {spec.flags[name]!r}"
            problems.add(where, name, rule, f"leave it out of `parameters` or of `trainer_args.{name}`")
        elif name in RESERVED_FLAGS or name == _TRIAL_NAME or name in _TRIAL_FLAGS:
            problems.add(where, name, "is set by the operator itself", "search something else")
        elif name != name.lower():
            problems.add(where, name, "is no setting of the trainer", f"write {name.lower()}")
        elif is_of_trainer(spec.image):
            check_parameter(parameter, spec.run, problems)


def _choices_of(parameter: Parameter) -> Given:
    values = (parameter.min, parameter.max) if parameter.is_range else parameter.values
    return Given(f"parameters.{parameter.name}", tuple(map(text_of, values)))


def _check_placeholders(spec: TrainerSpec, problems: Problems) -> None:
    texts: dict[str, Any] = {
        "image": spec.image,
        "model": spec.flags.get("model_name_or_path"),
        "dataset": spec.flags.get("dataset_name"),
        "output_uri": None if spec.output is None else spec.output.flag,
        "checkpoint_uri": spec.flags.get(PLACE_FLAG),
        "cache": None if spec.cache is None else [spec.cache.address, spec.cache.node_path],
        "job_options.service_account_name": spec.service_account_name,
        **{f"env.{name}": value for name, value in spec.env.items()},
    }
    for argument, text in texts.items():
        if "${trialParameters." in json.dumps(text, default=str):
            problems.add(argument, text, "contains what Katib would replace", "leave out `${trialParameters.…}`")


def _searched(parameter: Parameter) -> Flag:
    safe = all(shlex.quote(text) == text for text in map(text_of, parameter.values))
    return Flag(parameter.name, _placeholder(parameter.name), safe)


def _placeholder(name: str) -> str:
    return "${trialParameters." + name + "}"
