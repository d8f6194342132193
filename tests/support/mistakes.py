"""Mistakes to plant in good arguments, none of which hides or causes another."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from airflow.sdk import Asset

from airflow_llmtune.operators.katib import KatibExperimentOperator, KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.operators.trainer import (
    EvaluateLLMOperator,
    FineTuneLLMOperator,
    PyTorchJobOperator,
    TrainJobOperator,
)
from arguments import any_pytorch_job, any_train_job
from tasks import LOSS, SPACE, raw_experiment


class Mistake(NamedTuple):
    """
    :param told: the argument as the error names it.
    :param place: where in the arguments the value goes; missing mappings are made.
    """

    told: str
    place: tuple[Any, ...]
    value: Any


def _at(path: str, value: Any, *keys: Any, told: str | None = None) -> Mistake:
    """Of the argument, or of the part of it that ``keys`` lead to."""
    return Mistake(told or ".".join(map(str, (path, *keys))), (path, *keys), value)


def plant(good: Mapping[str, Any], mistakes: Iterable[Mistake]) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(dict(good))
    for mistake in mistakes:
        *way, key = mistake.place
        holder: Any = found
        for step in way:
            holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
        holder[key] = mistake.value
    return found


_WAITING = (
    _at("on_kill_action", "stop"),
    _at("timeout", datetime.timedelta()),
    _at("poll_interval", float("nan")),
    _at("api_retry_timeout", -1),
    _at("namespace", "Team A"),
)
_OWNING = (
    *_WAITING,
    _at("on_stale", "retry"),
    _at("on_clear", "fail"),
    _at("on_finish_action", "remove"),
    _at("stall_timeout", "1h"),
    _at("startup_timeout", 60),
    _at("on_stall", "ignore"),
)
_SEARCHING = (
    *_OWNING,
    _at("on_timeout", "keep"),
    _at("on_failure", "retry"),
    _at("min_succeeded_trials", 0),
)
_TRAINER = (
    _at("skip_if_unchanged", "maybe"),
    _at("model", "a/b/c"),
    _at("dataset", 7),
    _at("image", " trainer"),
    _at("trainer_args", 1, "Max-Steps"),
    _at("trainer_args", "x", "model_name_or_path"),
    _at("trainer_args", float("inf"), "weight_decay"),
    _at("env", "x", "A B"),
    _at("env", "hf_x", "HF_TOKEN"),
    _at("env", {"secretKeyRef": {"name": "hub"}}, "KEY_OF", told="env.KEY_OF.secretKeyRef.key"),
    _at("cache", "50GB", "size"),
    _at("cache", 5, "max_size"),
    _at("cache", "Fast SSD", "storage_class_name"),
    _at("cache", ["RWX"], "access_modes"),
    _at("cache", 1, "sise"),
    _at("job_options", 1, "num_nodez"),
    _at("job_options", 0, "active_deadline_seconds"),
    _at("job_options", 60, "ttl_seconds_after_finished"),
    _at("job_options", "x", "pod_template", "containers"),
    _at("job_options", "", "service_account_name"),
)
_RESOURCES = (("cpus", 1), ("memory", "4"), ("gpu", 0.5))

MISTAKES: dict[type[Any], tuple[Mistake, ...]] = {
    KatibTuneLLMOperator: (
        *_SEARCHING,
        *_TRAINER,
        *(_at("resources_per_trial", value, name) for name, value in _RESOURCES),
        _at("objective_metric_name", "eval loss"),
        _at("objective_type", "min"),
        _at("objective_goal", "nan"),
        _at("additional_metric_names", ["a b"], told="additional_metric_names[0]"),
        _at("algorithm_settings", {}, "random_state"),
        _at("algorithm_settings", 1, "gamma"),
        _at("parallel_trial_count", "two"),
        _at("max_failed_trial_count", -1),
        _at("output_uri", "org/name"),
        _at("early_stopping", "mean", "algorithm_name"),
        _at("early_stopping", 0, "start_step"),
        _at("early_stopping", 3, "min_trials"),
        _at("checkpoint_steps", 0),
        _at("checkpoint_uri", "org/name"),
        _at("parameters", {"type": "int", "min": 5, "max": 1}, "lora_alpha", told="parameters.lora_alpha.min"),
        _at("parameters", {"type": "double", "max": 1}, "lora_dropout", told="parameters.lora_dropout.min"),
        _at("parameters", {"type": "dubble"}, "warmup_ratio", told="parameters.warmup_ratio.type"),
        _at("warm_start", 7),
        _at("warm_start_scale", 2),
    ),
    FineTuneLLMOperator: (
        *_OWNING,
        *_TRAINER,
        *(_at("resources_per_node", value, name) for name, value in _RESOURCES),
        _at("output_uri", "org/name"),
        _at("checkpoint_steps", 0),
        _at("hyperparameters", None, "lora_r"),
        _at("hyperparameters", {}, "learning_rate"),
    ),
    EvaluateLLMOperator: (
        *_OWNING,
        *_TRAINER,
        *(_at("resources_per_node", value, name) for name, value in _RESOURCES),
        _at("adapter", "a/b/c"),
    ),
    DeployLLMOperator: (
        *_WAITING,
        _at("model", "a/b/c"),
        _at("name", "Chat"),
        _at("served_model_name", "a b"),
        _at("runtime", "tgi"),
        _at("deployment_mode", "Fast"),
        _at("model_args", 1, "--x"),
        _at("env", "hf_x", "HF_TOKEN"),
        *(_at("resources_per_replica", value, name) for name, value in _RESOURCES),
        _at("min_replicas", -1),
        _at("max_replicas", 0),
        _at("max_lora_rank", 513),
        _at("adapter_manifest", True, "parameters", "use_dora"),
        _at("adapter_manifest", "all", "parameters", "lora_bias"),
        _at("service_account_name", 7),
        _at("labels", 1, "team"),
        _at("overrides", {}, "predictr"),
        _at("on_failure", "wait"),
        _at("start_timeout", 60),
    ),
    KatibExperimentOperator: tuple(
        mistake._replace(told=mistake.told.removeprefix("experiment."))
        for mistake in (
            *_SEARCHING,
            _at("experiment", "kubeflow.org/v1", "apiVersion"),
            _at("experiment", "Trial", "kind"),
            _at("experiment", 7, "metadata", "labels", "team"),
            _at("experiment", "min", "spec", "objective", "type"),
            _at("experiment", "", "spec", "objective", "objectiveMetricName"),
            _at("experiment", "", "spec", "algorithm", "algorithmName"),
            _at("experiment", "4", "spec", "maxTrialCount"),
            _at("experiment", datetime.date(2026, 11, 22), "spec", "since"),
            _at("experiment", "x", "spec", "trialTemplate", "primaryContainerName"),
            _at("experiment", "x", "spec", "trialTemplate", "trialSpec", "metadata", "name"),
        )
    ),
    TrainJobOperator: tuple(
        mistake._replace(told=mistake.told.removeprefix("train_job."))
        for mistake in (
            *_OWNING,
            _at("train_job", "v1", "apiVersion"),
            _at("train_job", "Job", "kind"),
            _at("train_job", 7, "metadata", "labels", "team"),
            _at("train_job", "Runtime", "spec", "runtimeRef", "kind"),
            _at("train_job", 0, "spec", "trainer", "numNodes"),
            _at("train_job", 0, "spec", "trainer", "numProcPerNode"),
            _at("train_job", "x", "spec", "managedBy"),
            _at("train_job", 0, "spec", "activeDeadlineSeconds"),
            _at("train_job", {1}, "spec", "suspend"),
        )
    ),
    PyTorchJobOperator: tuple(
        mistake._replace(told=mistake.told.removeprefix("pytorch_job."))
        for mistake in (
            *_OWNING,
            _at("pytorch_job", "v1", "apiVersion"),
            _at("pytorch_job", "Job", "kind"),
            _at("pytorch_job", 7, "metadata", "labels", "team"),
            _at("pytorch_job", 2, "spec", "pytorchReplicaSpecs", "Master", "replicas"),
            _at("pytorch_job", "no", "spec", "pytorchReplicaSpecs", "Master", "restartPolicy"),
            _at("pytorch_job", 0, "spec", "nprocPerNode"),
            _at("pytorch_job", float("nan"), "spec", "runPolicy", "backoffLimit"),
        )
    ),
}

_TRAINED = {"model": "org/name", "dataset": "org/data", "model_asset": Asset("model"), "cache": {"size": "5Gi"}}
GOOD: dict[type[Any], dict[str, Any]] = {
    KatibTuneLLMOperator: {
        **_TRAINED,
        "parameters": SPACE,
        "algorithm_name": "random",
        "early_stopping": {"algorithm_name": "medianstop"},
        "trainer_args": {"eval_steps": 5, "max_steps": 100},
        "checkpoint_steps": 50,
        "checkpoint_uri": "s3://bucket/kept",
    },
    FineTuneLLMOperator: {**_TRAINED, "output_uri": "/models/out"},
    EvaluateLLMOperator: _TRAINED,
    DeployLLMOperator: {"name": "chat", "model": "org/name", "adapter": "s3://bucket/out"},
    KatibExperimentOperator: {"experiment": raw_experiment(LOSS)},
    TrainJobOperator: {"train_job": any_train_job()},
    PyTorchJobOperator: {"pytorch_job": any_pytorch_job()},
}
