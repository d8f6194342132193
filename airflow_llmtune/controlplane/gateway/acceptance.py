"""What the gateway makes of a route: whether it serves it, and what the route's status says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from airflow_llmtune.controlplane.gateway.endpoints import target_port
from airflow_llmtune.controlplane.gateway.filters import APPLIED

Object = Mapping[str, Any]
FindService = Callable[[str, str], Object | None]
"""By namespace and name."""

CONTROLLER = "llmtune.airflow.apache.org/gateway"
_GATEWAY = ("gateway.networking.k8s.io", "Gateway")


@dataclass(frozen=True)
class Verdict:
    type: str
    reason: str
    message: str
    is_true: bool = False


def gateways(route: Object) -> list[Object]:
    """The Gateways it names; this one gateway stands for all of them."""
    parents = route["spec"].get("parentRefs") or ()
    return [one for one in parents if (one["group"], one["kind"]) == _GATEWAY]


def accepted(route: Object) -> Verdict:
    wrong = next(_unsupported(route["spec"]["rules"]), "")
    if wrong:
        return Verdict("Accepted", "UnsupportedValue", wrong)
    return Verdict("Accepted", "Accepted", "the route is served", is_true=True)


def is_served(route: Object) -> bool:
    return bool(gateways(route)) and accepted(route).is_true


def resolved(route: Object, find_service: FindService) -> Verdict:
    namespace = route["metadata"]["namespace"]
    for rule in route["spec"]["rules"]:
        for backend in rule.get("backendRefs") or ():
            wrong = _unresolved(namespace, backend, find_service)
            if wrong is not None:
                return wrong
    return Verdict("ResolvedRefs", "ResolvedRefs", "all backends are there", is_true=True)


def _unsupported(rules: Iterable[Object]) -> Iterator[str]:
    for index, rule in enumerate(rules):
        backends = rule.get("backendRefs") or ()
        for one in [*(rule.get("filters") or ()), *(one for each in backends for one in each.get("filters") or ())]:
            if one["type"] not in APPLIED:
                yield f"rules[{index}]: this gateway does not apply the filter {one['type']}"
        for expression in _expressions(rule["matches"]):
            if not _can_be_read(expression):
                yield f"rules[{index}]: {expression!r} is not a regular expression"


def _expressions(stated: Iterable[Object]) -> Iterator[str]:
    for match in stated:
        for one in [match["path"], *(match.get("headers") or ()), *(match.get("queryParams") or ())]:
            if one["type"] == "RegularExpression":
                yield one["value"]


def _can_be_read(expression: str) -> bool:
    options = re2.Options()
    options.log_errors = False  # The library would write to stderr what the status says.
    try:
        re2.compile(expression, options)
    except re2.error:
        return False
    return True


def _unresolved(namespace: str, backend: Object, find_service: FindService) -> Verdict | None:
    name, port = backend["name"], backend.get("port", 0)
    if (backend["group"], backend["kind"]) != ("", "Service"):
        kind = f"{backend['kind']}.{backend['group']}".rstrip(".")
        return Verdict("ResolvedRefs", "InvalidKind", f"backend {name} is of the kind {kind}, not a Service")
    if backend.get("namespace", namespace) != namespace:
        text = f"backend {name} is in the namespace {backend['namespace']}; there is nothing that could permit that"
        return Verdict("ResolvedRefs", "RefNotPermitted", text)
    service = find_service(namespace, name)
    if service is None:
        return Verdict("ResolvedRefs", "BackendNotFound", f'Service "{name}" not found')
    if target_port(service, port) is None:
        return Verdict("ResolvedRefs", "BackendNotFound", f'Service "{name}" has no port {port}')
    return None


def parent_statuses(route: Object, find_service: FindService, now: str) -> list[dict[str, Any]]:
    """One for each Gateway; a condition that says the same as before keeps its time."""
    verdicts = (accepted(route), resolved(route, find_service))
    before = {str(one.get("parentRef")): one for one in (route.get("status") or {}).get("parents") or ()}
    return [
        {
            "parentRef": dict(parent),
            "controllerName": CONTROLLER,
            "conditions": [
                _condition(verdict, before.get(str(parent), {}), route["metadata"]["generation"], now)
                for verdict in verdicts
            ],
        }
        for parent in gateways(route)
    ]


def _condition(verdict: Verdict, before: Object, generation: int, now: str) -> dict[str, Any]:
    status = "True" if verdict.is_true else "False"
    told = before.get("conditions") or ()
    same = (one for one in told if (one.get("type"), one.get("status")) == (verdict.type, status))
    return {
        "type": verdict.type,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": next((one["lastTransitionTime"] for one in same), now),
        "reason": verdict.reason,
        "message": verdict.message,
    }
