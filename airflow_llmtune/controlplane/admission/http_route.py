"""What Gateway API's definition of HTTPRoute refuses beyond its schema: the rules it states as expressions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from airflow_llmtune.controlplane.admission.http_route_schema import FILTER_FIELDS, HTTP_ROUTE
from airflow_llmtune.controlplane.admission.training_schema import apply_schema
from airflow_llmtune.controlplane.apiserver import kinds
from airflow_llmtune.controlplane.apiserver.errors import Cause, invalid

Object = dict[str, Any]

_MOST_MATCHES = 128
_PATH_TYPES = "['Exact', 'PathPrefix']"
_PATH_TEXT = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+")
_NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F", "#")
_NOT_AT_THE_END = ("/..", "/.")
_REPLACEMENTS = {"ReplaceFullPath": "replaceFullPath", "ReplacePrefixMatch": "replacePrefixMatch"}
_ONE_PREFIX = "using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"


def admit_http_route(route: Object) -> None:
    """In place: prunes it and fills in what is not said."""
    if "deletionTimestamp" in route["metadata"]:
        return  # Only finalizers change now.
    route.setdefault("spec", {})
    found = apply_schema(HTTP_ROUTE, route) or list(_causes(route["spec"]))
    if found:
        raise invalid(kinds.HTTP_ROUTE, route["metadata"]["name"], found)


def _causes(spec: Object) -> Iterator[Cause]:
    rules = spec["rules"]
    if sum(len(rule["matches"]) for rule in rules) > _MOST_MATCHES:
        yield _cause(
            "spec.rules",
            "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a "
            "route must be less than 128",
            "array",
        )
    for index, rule in enumerate(rules):
        yield from _rule_causes(f"spec.rules[{index}]", rule)


def _rule_causes(path: str, rule: Object) -> Iterator[Cause]:
    backends = rule.get("backendRefs") or []
    filters = rule.get("filters") or []
    if backends and any(one["type"] == "RequestRedirect" for one in filters):
        yield _cause(path, "RequestRedirect filter must not be used together with backendRefs")
    if _replaces_prefix(filters) and not _has_one_prefix(rule):
        yield _cause(path, f"When {_ONE_PREFIX}")
    if any(_replaces_prefix(one.get("filters") or []) for one in backends) and not _has_one_prefix(rule):
        yield _cause(path, f"Within backendRefs, When {_ONE_PREFIX}")
    yield from _filter_causes(f"{path}.filters", filters)
    for index, match in enumerate(rule["matches"]):
        yield from _path_causes(f"{path}.matches[{index}].path", match["path"])
    for index, backend in enumerate(backends):
        where = f"{path}.backendRefs[{index}]"
        if not backend["group"] and backend["kind"] == "Service" and "port" not in backend:
            yield _cause(where, "Must have port for Service reference")
        yield from _filter_causes(f"{where}.filters", backend.get("filters") or [])


def _replaces_prefix(filters: list[Object]) -> bool:
    paths = [(one.get("urlRewrite") or {}).get("path") or {} for one in filters]
    return any(one.get("type") == "ReplacePrefixMatch" for one in paths)


def _has_one_prefix(rule: Object) -> bool:
    return len(rule["matches"]) == 1 and rule["matches"][0]["path"]["type"] == "PathPrefix"


def _filter_causes(path: str, filters: list[Object]) -> Iterator[Cause]:
    counts = Counter(one["type"] for one in filters)
    for name, count in counts.items():
        if count > 1 and name not in {"RequestMirror", "ExtensionRef"}:
            yield _cause(path, f"{name} filter cannot be repeated", "array")
    if {"RequestRedirect", "URLRewrite"} <= counts.keys():
        text = "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both"
        yield _cause(path, text, "array")
    for index, one in enumerate(filters):
        where = f"{path}[{index}]"
        for type_, field in FILTER_FIELDS.items():
            if field in one and one["type"] != type_:
                yield _cause(where, f"filter.{field} must be nil if the filter.type is not {type_}")
            elif field not in one and one["type"] == type_:
                yield _cause(where, f"filter.{field} must be specified for {type_} filter.type")
        yield from _replacement_causes(f"{where}.urlRewrite.path", (one.get("urlRewrite") or {}).get("path") or {})


def _replacement_causes(path: str, replacement: Object) -> Iterator[Cause]:
    for type_, field in _REPLACEMENTS.items():
        if replacement.get("type") == type_ and field not in replacement:
            yield _cause(path, f"{field} must be specified when type is set to '{type_}'")
        elif field in replacement and replacement["type"] != type_:
            yield _cause(path, f"type must be '{type_}' when {field} is set")


def _path_causes(path: str, match: Object) -> Iterator[Cause]:
    if match["type"] == "RegularExpression":
        return
    value, for_types = match["value"], f"when type one of {_PATH_TYPES}"
    if not value.startswith("/"):
        yield _cause(path, f"value must be an absolute path and start with '/' {for_types}")
    for part in _NOT_IN_PATHS:
        if part in value:
            yield _cause(path, f"must not contain '{part}' {for_types}")
    for part in _NOT_AT_THE_END:
        if value.endswith(part):
            yield _cause(path, f"must not end with '{part}' {for_types}")
    if not _PATH_TEXT.fullmatch(value):
        pattern = f"^{_PATH_TEXT.pattern}$"
        yield _cause(path, f"must only contain valid characters (matching {pattern}) for types {_PATH_TYPES}")


def _cause(path: str, text: str, type_: str = "object") -> Cause:
    """As of a rule that is an expression: it names the value's type in place of the value."""
    return Cause(path, f'Invalid value: "{type_}": {text}')
