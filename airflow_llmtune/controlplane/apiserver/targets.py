"""What a request is about, read from its path and query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.apiserver.errors import bad_request, unknown_resource
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, JOB, POD, REPLICA_SET

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
    from airflow_llmtune.controlplane.apiserver.deletion import Propagation
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

_TRUE = frozenset({"true", "1", "True", "t", "T", "TRUE"})
_INTEGER = re.compile(r"[+-]?[0-9]+")
_INT64 = 2**63
_LONGEST_INTEGER = len(str(-_INT64))
_NAMESPACE_SUBRESOURCES = frozenset({"status"})


@dataclass(frozen=True)
class Target:
    """``namespace`` is None for cluster-scoped kinds and for requests over all namespaces."""

    kind: Kind
    namespace: str | None = None
    name: str = ""
    subresource: str = ""


def parse_target(path: str, kinds: KindCatalog) -> Target:
    """``/api/v1/...`` and ``/apis/<group>/<version>/...``; raises the 404 of a real server."""
    segments = path.strip("/").split("/")
    if segments[0] == "api" and len(segments) >= 3:
        (group, version), rest = ("", segments[1]), segments[2:]
    elif segments[0] == "apis" and len(segments) >= 4:
        (group, version), rest = (segments[1], segments[2]), segments[3:]
    else:
        raise unknown_resource()
    namespace = None
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise unknown_resource()
    plural, name, subresource = (*rest, "", "")[:3]
    kind = kinds.find_resource(group, version, plural)
    if kind is None or not _fits(kind, namespace, name, subresource):
        raise unknown_resource()
    return Target(kind, namespace, name, subresource)


def _fits(kind: Kind, namespace: str | None, name: str, subresource: str) -> bool:
    if kind.namespaced and name and namespace is None:
        return False
    if not kind.namespaced and namespace is not None:
        return False
    return subresource in subresources(kind)


def subresources(kind: Kind) -> tuple[str, ...]:
    """The empty string stands for the object itself."""
    own = {POD: ("log",), DEPLOYMENT: ("scale",), REPLICA_SET: ("scale",)}
    return ("", *(("status",) if kind.has_status else ()), *own.get(kind, ()))


def flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") in _TRUE


def integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if _INTEGER.fullmatch(text) is None:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    number = int(text) if len(text) <= _LONGEST_INTEGER else _INT64
    if not -_INT64 <= number < _INT64:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def is_dry_run(values: list[str]) -> bool:
    if any(value != "All" for value in values):
        raise bad_request(f'invalid dryRun value {values}: supported values: "All"')
    return bool(values)


@dataclass(frozen=True)
class DeleteOptions:
    propagation: Propagation
    is_default: bool
    """Whether the client left the propagation policy open."""
    uid: str | None = None
    resource_version: str | None = None
    grace_period_seconds: int | None = None
    dry_run: bool = False


def delete_options(
    kind: Kind, query: Mapping[str, str], dry_run: list[str], body: Mapping[str, object]
) -> DeleteOptions:
    """From the body (``DeleteOptions``) or else the query, which may carry the same fields."""
    wanted = _propagation(query, body)
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions must be an object")
    grace = body.get("gracePeriodSeconds")
    dry_runs = dry_run or body.get("dryRun") or []
    if not isinstance(dry_runs, list):
        raise bad_request("dryRun must be a list")
    return DeleteOptions(
        # batch/v1 keeps the pods of a Job that is deleted without a policy, unlike every other kind.
        propagation=wanted or ("Orphan" if kind is JOB else "Background"),
        is_default=wanted is None,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        grace_period_seconds=grace if isinstance(grace, int) else integer(query, "gracePeriodSeconds"),
        dry_run=is_dry_run(dry_runs),
    )


def _propagation(query: Mapping[str, str], body: Mapping[str, object]) -> Propagation | None:
    wanted = body.get("propagationPolicy") or query.get("propagationPolicy")
    if wanted:
        if wanted not in ("Background", "Foreground", "Orphan"):
            raise bad_request(f'invalid propagationPolicy "{wanted}": must be Foreground, Background or Orphan')
        return wanted
    orphan = body.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = flag(query, "orphanDependents")
    if orphan is None:
        return None
    return "Orphan" if orphan else "Background"
