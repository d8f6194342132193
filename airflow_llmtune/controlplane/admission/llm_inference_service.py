"""KServe's defaulter and validator of LLMInferenceServices (v1alpha2), and what cannot be run here."""

from __future__ import annotations

import json
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import Cause, forbidden, invalid, invalid_value, required_value
from airflow_llmtune.controlplane.apiserver.kinds import LLM_INFERENCE_SERVICE

Object = dict[str, Any]

WEBHOOK = "llminferenceservice.kserve-webhook-server.v1alpha2.validator"

_NOT_HERE = ("prefill", "worker", "parallelism", "baseRefs", "scaling", "kvCacheOffloading", "tracing")
_ROUTER_NOT_HERE = ("ingress", "scheduler")


def default_llm_inference_service(service: Object) -> None:
    model = service["spec"].setdefault("model", {})
    if not model.get("name"):
        model["name"] = service["metadata"]["name"]


def check_llm_inference_service(service: Object) -> None:
    causes = _adapter_causes(service["spec"]["model"])
    if causes:
        error = invalid(LLM_INFERENCE_SERVICE, service["metadata"]["name"], causes)
        error.status["message"] = f'admission webhook "{WEBHOOK}" denied the request: {error.message}'
        raise error
    spec, router = service["spec"], service["spec"].get("router") or {}
    given = [f"spec.{name}" for name in _NOT_HERE if spec.get(name)]
    given += [f"spec.router.{name}" for name in _ROUTER_NOT_HERE if router.get(name) is not None]
    route = router.get("route") or {}
    given += [f"spec.router.route.{name}" for name in ("group", "weight") if route.get(name) is not None]
    given += [f"spec.router.route.http.{name}" for name in ("refs", "spec") if (route.get("http") or {}).get(name)]
    if (spec["model"].get("confidential") or {}).get("enabled"):
        given.append("spec.model.confidential")
    if given:
        text = f"not supported here: {', '.join(given)}; a model runs in replicas of one pod behind one route"
        raise forbidden(f'admission webhook "{WEBHOOK}" denied the request: {text}')


def _adapter_causes(model: Object) -> list[Cause]:
    path, seen = "spec.model.lora.adapters", dict[str, int]()
    causes = []
    for index, adapter in enumerate((model.get("lora") or {}).get("adapters") or ()):
        where, name = f"{path}[{index}].name", adapter.get("name", "")
        if not name:
            causes.append(required_value(where, "adapter name is required"))
        elif name in (".", ".."):
            text = 'adapter name must not include "." or ".." (path traversal risk)'
            causes.append(invalid_value(where, name, text))
        else:
            causes += _name_causes(where, name, seen.setdefault(name, index), index, model["name"])
    return causes


def _name_causes(where: str, name: str, first: int, index: int, base: str) -> list[Cause]:
    causes = []
    if first != index:
        causes.append(invalid_value(where, name, f"duplicate name (same as adapters[{first}])"))
    if name == base:
        text = f"adapter name must differ from base model name {json.dumps(base)}"
        causes.append(invalid_value(where, name, text))
    return causes
