"""Fields of built-in kinds that an update may not change. A Job's are in admission, with the rest of its rules.

A field that an update leaves out counts as unchanged where a real server would fill in the same default again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import Cause, forbidden_value, invalid, invalid_value
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    REPLICA_SET,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    Kind,
)
from airflow_llmtune.controlplane.go_text import go_json

Object = dict[str, Any]

_POD_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_CLAIM_RULE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)
_SET_RULE = "field is immutable when `immutable` is set"


def check_unchanged(kind: Kind, obj: Object, old: Object) -> None:
    """May complete ``obj`` in place; raises 422 with all that it changes and may not."""
    check = _CHECKS.get(kind)
    causes = check(obj, old) if check is not None else []
    if causes:
        raise invalid(kind, obj["metadata"]["name"], causes)


def _completed(new: Any, old: Any) -> Any:
    """The new value with the fields of the old one that it leaves out; list items are compared by place."""
    if isinstance(new, dict) and isinstance(old, dict):
        filled = {name: _completed(value, old.get(name)) for name, value in new.items()}
        return {**copy.deepcopy(old), **filled}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [_completed(one, before) for one, before in zip(new, old, strict=True)]
    return new


def _pod_causes(pod: Object, old: Object) -> list[Cause]:
    spec = pod["spec"] = _completed(pod.get("spec") or {}, old.get("spec") or {})
    same = _fixed_pod_spec(spec) == _fixed_pod_spec(old.get("spec") or {})
    bound = {**_fixed_pod_spec(old.get("spec") or {}), "nodeName": spec.get("nodeName")}
    if same or (not (old.get("spec") or {}).get("nodeName") and _fixed_pod_spec(spec) == bound):
        return []
    return [forbidden_value("spec", _POD_RULE)]


def _fixed_pod_spec(spec: Mapping[str, Any]) -> Object:
    fixed = {
        name: value
        for name, value in spec.items()
        if name not in {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    }
    for name in ("containers", "initContainers"):
        if isinstance(fixed.get(name), list):
            fixed[name] = [{**one, "image": ""} if isinstance(one, dict) else one for one in fixed[name]]
    return fixed


def _claim_causes(claim: Object, old: Object) -> list[Cause]:
    before = old.get("spec") or {}
    spec = claim["spec"] = _completed(claim.get("spec") or {}, before)
    free = {"resources", "volumeAttributesClassName", *(() if "volumeName" in before else ("volumeName",))}
    changed = any(spec.get(name) != before.get(name) for name in {*spec, *before} - free)
    return [forbidden_value("spec", _CLAIM_RULE)] if changed else []


def _service_causes(service: Object, old: Object) -> list[Cause]:
    spec, before = service.get("spec") or {}, (old.get("spec") or {}).get("clusterIP")
    if not before or not isinstance(spec, dict):
        return []
    wanted = spec.setdefault("clusterIP", before) or before
    return [] if wanted == before else [invalid_value("spec.clusterIP", wanted, "field is immutable")]


def _secret_causes(secret: Object, old: Object) -> list[Cause]:
    causes = _frozen_causes(secret, old)
    before, wanted = old.get("type", "Opaque"), secret.get("type", "Opaque")
    if wanted != before:
        causes.append(invalid_value("type", wanted, "field is immutable"))
    return causes


def _frozen_causes(obj: Object, old: Object) -> list[Cause]:
    """Of Secrets and ConfigMaps that were declared immutable."""
    if old.get("immutable") is not True:
        return []
    fixed = ("data", "binaryData", "immutable")
    return [forbidden_value(name, _SET_RULE) for name in fixed if (obj.get(name) or {}) != (old.get(name) or {})]


def _binding_causes(binding: Object, old: Object) -> list[Cause]:
    if binding.get("roleRef") == old.get("roleRef"):
        return []
    return [invalid_value("roleRef", json.dumps(binding.get("roleRef")), "cannot change roleRef")]


def _selector_causes(workload: Object, old: Object) -> list[Cause]:
    wanted, before = ((one.get("spec") or {}).get("selector") for one in (workload, old))
    if wanted == before:
        return []
    return [Cause("spec.selector", f"Invalid value: {go_json(wanted, sort_keys=True)}: field is immutable")]


_CHECKS: dict[Kind, Callable[[Object, Object], list[Cause]]] = {
    POD: _pod_causes,
    PERSISTENT_VOLUME_CLAIM: _claim_causes,
    SERVICE: _service_causes,
    SECRET: _secret_causes,
    CONFIG_MAP: _frozen_causes,
    ROLE_BINDING: _binding_causes,
    DEPLOYMENT: _selector_causes,
    REPLICA_SET: _selector_causes,
}
