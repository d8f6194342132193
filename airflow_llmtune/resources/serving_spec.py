"""A model to serve, checked: a base model, perhaps with an adapter, and what its server gets."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from airflow_llmtune.resources import inference_service, llm_inference_service
from airflow_llmtune.resources.adapter import check_servable, read_rank
from airflow_llmtune.resources.environment import check_environments, read_env, refuse_secret
from airflow_llmtune.resources.header import check_pairs
from airflow_llmtune.resources.inference_service import DEPLOYMENT_MODE, MAX_NAME_LENGTH, MODES
from airflow_llmtune.resources.meta import is_plain, text_of
from airflow_llmtune.resources.model_storage import ModelStorage
from airflow_llmtune.resources.pod_override import merge
from airflow_llmtune.resources.pod_resources import read_resources
from airflow_llmtune.resources.problems import Problems, did_you_mean
from airflow_llmtune.resources.redaction import is_secret
from airflow_llmtune.resources.shape import check_plain

__all__ = ["KINDS", "RUNTIMES", "ServingSpec"]

KINDS = (inference_service.KIND.kind, llm_inference_service.KIND.kind)
RUNTIMES = ("huggingface", "vllm")

_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_SERVED_NAME = r"(?a)[A-Za-z0-9][\w./:-]*"
_FLAG = r"[a-z][a-z0-9_-]*"
_RESERVED = {
    **dict.fromkeys(("model_name", "served_model_name"), "served_model_name"),
    **dict.fromkeys(("model", "model_dir", "model_id", "model_revision", "revision"), "model"),
    **dict.fromkeys(("enable_lora", "lora_modules"), "adapter"),
    "max_lora_rank": "max_lora_rank",
}
_OVERRIDES = {
    inference_service.KIND.kind: ("predictor", "transformer", "explainer"),
    llm_inference_service.KIND.kind: (
        *("model", "template", "router", "parallelism", "baseRefs", "storageInitializer", "labels", "annotations"),
        *("replicas", "scaling", "prefill", "tracing", "kvCacheOffloading", "rolloutStrategy"),
    ),
}
_BASE_PATH, _ADAPTER_PATH = "/mnt/models/base", "/mnt/models/adapter"


class ServingSpec(NamedTuple):
    name: str
    kind: str
    runtime: str
    served_name: str
    model: ModelStorage
    adapter: ModelStorage | None
    max_lora_rank: int | None
    deployment_mode: str | None
    args: tuple[str, ...]
    env: Mapping[str, str | Mapping[str, Any]]
    resources: Mapping[str, str]
    min_replicas: int | None
    max_replicas: int | None
    service_account_name: str | None
    labels: Mapping[str, str]
    overrides: Mapping[str, Any]

    @classmethod
    def from_args(
        cls,
        *,
        name: Any,
        model: Any,
        adapter: Any,
        served_model_name: Any,
        kind: Any,
        runtime: Any,
        deployment_mode: Any,
        adapter_manifest: Any,
        max_lora_rank: Any,
        model_args: Any,
        env: Any,
        resources: Any,
        min_replicas: Any,
        max_replicas: Any,
        service_account_name: Any,
        labels: Any,
        overrides: Any,
        problems: Problems,
    ) -> ServingSpec:
        """Note every mistake in ``problems``; the spec returned is good only when there is none."""
        rank = read_rank(max_lora_rank, adapter, problems)
        known_kind = problems.choice("kind", kind, KINDS) or KINDS[0]
        served = name if served_model_name is None else served_model_name
        _check_names(name, served, problems)
        check_pairs("labels", labels, problems)
        if service_account_name is not None:
            problems.name("service_account_name", service_account_name, "give one, or leave it out")
        spec = cls(
            name=str(name),
            kind=known_kind,
            runtime=(runtime and problems.choice("runtime", runtime, RUNTIMES)) or RUNTIMES[0],
            served_name=str(served),
            model=ModelStorage.read("model", model, problems) or ModelStorage(),
            adapter=None if adapter is None else ModelStorage.read("adapter", adapter, problems),
            max_lora_rank=rank if adapter is None else check_servable(adapter_manifest, rank, problems),
            deployment_mode=deployment_mode and problems.choice("deployment_mode", deployment_mode, MODES),
            args=_read_args(model_args, problems),
            env=read_env(env, problems),
            resources=read_resources("resources_per_replica", resources, problems),
            min_replicas=_read_count("min_replicas", min_replicas, 0, problems),
            max_replicas=_read_count("max_replicas", max_replicas, 1, problems),
            service_account_name=service_account_name,
            labels=dict(labels) if isinstance(labels, Mapping) else {},
            overrides=_read_overrides(overrides, known_kind, problems),
        )
        spec._check_replicas(problems)
        if known_kind == llm_inference_service.KIND.kind:
            spec._check_llm(problems, runtime=runtime)
        return spec

    def to_manifest(self) -> dict[str, Any]:
        """The object without its namespace."""
        kind = inference_service.KIND if self.kind == inference_service.KIND.kind else llm_inference_service.KIND
        metadata: dict[str, Any] = {"name": self.name}
        metadata["labels"] = {"app.kubernetes.io/managed-by": "airflow-llmtune", **self.labels}
        if self.deployment_mode is not None:
            metadata["annotations"] = {DEPLOYMENT_MODE: self.deployment_mode}
        spec = self._inference_service() if kind is inference_service.KIND else self._llm_inference_service()
        return {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": metadata,
            "spec": merge(spec, self.overrides),
        }

    def _inference_service(self) -> dict[str, Any]:
        model: dict[str, Any] = {
            "modelFormat": {"name": "vLLM" if self.runtime == "vllm" else "huggingface"},
            "args": [_escaped(arg) for arg in [*self._server_args(), *self.args]],
        }
        if self.env:
            model["env"] = _env(self.env)
        if self.resources:
            # KServe gives a request of its own where there is only a limit, and it may be above it.
            model["resources"] = {"requests": dict(self.resources), "limits": dict(self.resources)}
        predictor: dict[str, Any] = {"model": model}
        mounts = [
            {"uri": storage.uri, "mountPath": path}
            for storage, path in ((self.model, _BASE_PATH), (self.adapter, _ADAPTER_PATH))
            if storage is not None and storage.uri is not None
        ]
        if self.adapter is None and mounts:
            model["storageUri"] = self.model.uri
        elif mounts:
            predictor["storageUris"] = mounts
        given = {
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "serviceAccountName": self.service_account_name,
        }
        return {"predictor": {**predictor, **{key: value for key, value in given.items() if value is not None}}}

    def _server_args(self) -> list[str]:
        is_vllm = self.runtime == "vllm"
        base_name = self.served_name if self.adapter is None else self._base_name
        args = [f"--{'served-model-name' if is_vllm else 'model_name'}={base_name}"]
        path = self.model.path if self.adapter is None else self.model.folder(_BASE_PATH)
        if path is not None:  # else it is where KServe puts a single model, and both servers look there
            args.append(f"--{'model' if is_vllm else 'model_dir'}={path}")
        if self.adapter is None:
            return args
        if not is_vllm:
            args.append("--backend=vllm")  # the other back end has no adapters
        args.append("--enable-lora")
        if self.max_lora_rank is not None:
            args.append(f"--max-lora-rank={self.max_lora_rank}")
        module = {"name": self.served_name, "path": self.adapter.folder(_ADAPTER_PATH)}
        return [*args, f"--lora-modules={json.dumps(module, separators=(',', ':'))}"]

    def _llm_inference_service(self) -> dict[str, Any]:
        model: dict[str, Any] = {"uri": self.model.uri, "name": self.served_name}
        if self.adapter is not None:
            model["name"] = self._base_name
            model["lora"] = {"adapters": [{"name": self.served_name, "uri": self.adapter.uri}]}
            if self.max_lora_rank is not None:
                model["lora"]["maxRank"] = self.max_lora_rank
        container: dict[str, Any] = {"name": llm_inference_service.CONTAINER}
        env = _env(self.env)
        if self.args:
            # Its containers run vLLM by a shell line of their own, and take further arguments from there.
            env.append({"name": "VLLM_ADDITIONAL_ARGS", "value": _escaped(shlex.join(self.args))})
        if env:
            container["env"] = env
        if self.resources:
            container["resources"] = {"requests": dict(self.resources), "limits": dict(self.resources)}
        template: dict[str, Any] = {"containers": [container]} if len(container) > 1 else {}
        if self.service_account_name is not None:
            template["serviceAccountName"] = self.service_account_name
        spec: dict[str, Any] = {"model": model, "router": {"gateway": {}, "route": {}}}
        if template:
            spec["template"] = template
        return spec if self.min_replicas is None else {**spec, "replicas": self.min_replicas}

    @property
    def _base_name(self) -> str:
        """Clients ask for the adapter by the served name; the model below it needs another one."""
        return f"{self.served_name}-base"

    def _check_replicas(self, problems: Problems) -> None:
        least, most = self.min_replicas, self.max_replicas
        if least is not None and most is not None and least > most:
            problems.add("min_replicas", least, f"is more than `max_replicas`={most}", "lower one, or raise the other")
        if least == 0 and self.deployment_mode != "Knative":
            rule = "lets the model scale to zero, which only Knative mode does"
            problems.add("min_replicas", least, rule, "give deployment_mode='Knative', or 1 or more")

    def _check_llm(self, problems: Problems, *, runtime: Any) -> None:
        of_another = (("deployment_mode", self.deployment_mode), ("max_replicas", self.max_replicas))
        for argument, value in of_another:
            if value is not None:
                problems.add(argument, value, "is nothing that an LLMInferenceService has", "leave it out")
        if runtime not in (None, "vllm"):
            rule = "is not what an LLMInferenceService runs"
            problems.add("runtime", runtime, rule, "leave it out: it runs vLLM")
        for argument, storage in (("model", self.model), ("adapter", self.adapter)):
            if storage is not None and storage.path is not None:
                rule = "is a path, and an LLMInferenceService takes addresses only"
                problems.add(argument, storage.path, rule, "give hf://, s3:// or pvc://claim/path")


def _check_names(name: Any, served: Any, problems: Problems) -> None:
    if not isinstance(name, str) or not re.fullmatch(_NAME, name) or len(name) > MAX_NAME_LENGTH:
        rule = f"is not a name of at most {MAX_NAME_LENGTH} characters a-z, 0-9 and `-`, starting with a letter"
        problems.add("name", name, rule, "give such as 'chat'")
    if not isinstance(served, str) or not re.fullmatch(_SERVED_NAME, served):
        rule = "is not a name that clients can ask for"
        problems.add("served_model_name", served, rule, "use letters, digits, `.`, `-`, `_`, `/`, `:`")


def _read_count(argument: str, value: Any, at_least: int, problems: Problems) -> int | None:
    return None if value is None else problems.integer(argument, value, at_least=at_least)


def _read_args(given: Any, problems: Problems) -> tuple[str, ...]:
    """Flags of the server: a value, True for a flag without one, a list for one that is repeated."""
    args: list[str] = []
    for name, value in problems.mapping("model_args", given).items():
        where, plain = f"model_args.{name}", name.replace("-", "_")
        if not re.fullmatch(_FLAG, name):
            problems.add(where, name, "is not a flag's name", "use a-z, 0-9, `-` and `_`, starting with a letter")
        elif plain in _RESERVED:
            problems.add(where, value, "has an argument of its own", f"use `{_RESERVED[plain]}`")
        elif is_secret(plain, value):
            refuse_secret(where, value, problems)
        elif value is True:
            args.append(f"--{name}")
        elif value is not None and value is not False:
            args += _repeated(where, name, value, problems)
    return tuple(args)


def _repeated(where: str, name: str, value: Any, problems: Problems) -> list[str]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    if all(map(is_plain, values)):
        return [f"--{name}={text_of(item)}" for item in values]
    problems.add(where, value, "is not a text, finite number, boolean or list of these", "give a plain value")
    return []


def _read_overrides(given: Any, kind: str, problems: Problems) -> dict[str, Any]:
    overrides = problems.mapping("overrides", given)
    for name in [name for name in overrides if name not in _OVERRIDES[kind]]:
        fix = did_you_mean(name, _OVERRIDES[kind])
        problems.add(f"overrides.{name}", overrides[name], f"is no part of this spec of the {kind}", fix)
    check = partial(check_environments, "overrides", overrides, problems)
    return overrides if check_plain("overrides", overrides, check, problems) else {}


def _env(env: Mapping[str, str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": _escaped(value)} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in env.items()
    ]


def _escaped(text: str) -> str:
    """Kubernetes would put a variable's value in the place of ``$(NAME)``."""
    return text.replace("$", "$$")
