"""What the filters of a rule do to a request's path and to headers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_llmtune.controlplane.gateway.request import Headers

Object = Mapping[str, Any]

APPLIED = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "URLRewrite"})


def rewritten_path(filters: Iterable[Object], prefix: str, path: str) -> str:
    """``prefix`` is what the rule matched; the rest of the path stays."""
    for change in _changes(filters, "urlRewrite"):
        replacement = change.get("path") or {}
        if replacement.get("type") == "ReplaceFullPath":
            path = replacement["replaceFullPath"]
        elif replacement.get("type") == "ReplacePrefixMatch":
            rest = path.removeprefix(prefix.rstrip("/"))
            path = f"{replacement['replacePrefixMatch'].rstrip('/')}{rest}"
    return path if path.startswith("/") else f"/{path}"


def rewritten_host(filters: Iterable[Object], host: str) -> str:
    for change in _changes(filters, "urlRewrite"):
        host = change.get("hostname", host)
    return host


def changed_request_headers(filters: Iterable[Object], headers: Headers) -> Headers:
    return _changed_headers(_changes(filters, "requestHeaderModifier"), headers)


def changed_response_headers(filters: Iterable[Object], headers: Headers) -> Headers:
    return _changed_headers(_changes(filters, "responseHeaderModifier"), headers)


def _changes(filters: Iterable[Object], field: str) -> list[Object]:
    return [one[field] for one in filters if field in one]


def _changed_headers(changes: Iterable[Object], headers: Headers) -> Headers:
    for change in changes:
        replaced = _pairs(change.get("set"))
        gone = {name for name, _ in replaced} | {name.lower() for name in change.get("remove") or ()}
        kept = tuple(pair for pair in headers if pair[0] not in gone)
        headers = (*kept, *replaced, *_pairs(change.get("add")))
    return headers


def _pairs(stated: Iterable[Object] | None) -> Headers:
    return tuple((one["name"].lower(), one["value"]) for one in stated or ())
