"""The schema of Gateway API's HTTPRoute, v1."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.schema_parts import OPEN, Schema, choice, list_of, object_of

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS = rf"{_LABEL}(\.{_LABEL})*"


def _list(item: Schema, most: int, least: int = 0) -> Schema:
    return {**list_of(item), "maxItems": most, "minItems": least}


def _text(most: int, least: int = 0, pattern: str = "") -> Schema:
    return {"type": "string", "maxLength": most, "minLength": least, **({"pattern": pattern} if pattern else {})}


def _number(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _default(value: Any, schema: Schema) -> Schema:
    return {**schema, "default": value}


_GROUP = _text(253, pattern=rf"^$|^{_DNS}$")
_KIND = _text(63, 1, "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
_NAME = _text(253, 1)
_NAMESPACE = _text(63, 1, f"^{_LABEL}$")
_SECTION = _text(253, 1, f"^{_DNS}$")
_HOSTNAME = _text(253, 1, rf"^(\*\.)?{_DNS}$")
_PORT = _number(1, 65535)
_TOKEN = _text(256, 1, r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$")
_DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}

_PARENT = {
    "group": _default("gateway.networking.k8s.io", _GROUP),
    "kind": _default("Gateway", _KIND),
    "namespace": _NAMESPACE,
    "name": _NAME,
    "sectionName": _SECTION,
    "port": _PORT,
}


def _by_name(value: Schema) -> Schema:
    """A list of names and values, each name once."""
    return {
        **_list(object_of({"name": _TOKEN, **value}, ("name", "value")), 16),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }


def _matched(most: int) -> Schema:
    return _by_name({"type": _default("Exact", choice("Exact", "RegularExpression")), "value": _text(most, 1)})


_ROOT = {"type": "PathPrefix", "value": "/"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_MATCH = object_of(
    {
        "path": _default(
            _ROOT,
            object_of(
                {
                    "type": _default("PathPrefix", choice("Exact", "PathPrefix", "RegularExpression")),
                    "value": _default("/", _text(1024)),
                }
            ),
        ),
        "headers": _matched(4096),
        "queryParams": _matched(1024),
        "method": choice(*_METHODS),
    }
)

_HEADERS = _by_name({"value": _text(4096, 1)})
_CHANGED_HEADERS = object_of(
    {"set": _HEADERS, "add": _HEADERS, "remove": {**_list({"type": "string"}, 16), "x-kubernetes-list-type": "set"}}
)
_REWRITE = object_of(
    {
        "hostname": _text(253, 1, f"^{_DNS}$"),
        "path": object_of(
            {
                "type": choice("ReplaceFullPath", "ReplacePrefixMatch"),
                "replaceFullPath": _text(1024),
                "replacePrefixMatch": _text(1024),
            },
            ("type",),
        ),
    }
)
# The fields of those that the gateway does not apply stay open.
FILTER_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "ExtensionRef": "extensionRef",
    "CORS": "cors",
}
_FILTERS = _list(
    object_of(
        {
            "type": choice(*FILTER_FIELDS),
            **dict.fromkeys(FILTER_FIELDS.values(), OPEN),
            "requestHeaderModifier": _CHANGED_HEADERS,
            "responseHeaderModifier": _CHANGED_HEADERS,
            "urlRewrite": _REWRITE,
        },
        ("type",),
    ),
    16,
)
_BACKEND = object_of(
    {
        "group": _default("", _GROUP),
        "kind": _default("Service", _KIND),
        "namespace": _NAMESPACE,
        "name": _NAME,
        "port": _PORT,
        "weight": _default(1, _number(0, 1_000_000)),
        "filters": _FILTERS,
    },
    ("name",),
)
_RULE = object_of(
    {
        "name": _SECTION,
        "matches": _default([{"path": _ROOT}], _list(_MATCH, 64)),
        "filters": _FILTERS,
        "backendRefs": _list(_BACKEND, 16),
        "timeouts": object_of({"request": _DURATION, "backendRequest": _DURATION}),
    }
)

_CONDITION = object_of(
    {
        "type": {"type": "string"},
        "status": choice("True", "False", "Unknown"),
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string"},
        "reason": {"type": "string"},
        "message": {"type": "string"},
    }
)
_PARENT_STATUS = object_of(
    {
        "parentRef": object_of(_PARENT, ("name",)),
        "controllerName": {"type": "string"},
        "conditions": _list(_CONDITION, 8),
    }
)
HTTP_ROUTE = object_of(
    {
        "spec": object_of(
            {
                "parentRefs": _list(object_of(_PARENT, ("name",)), 32),
                "hostnames": _list(_HOSTNAME, 16),
                "rules": _default([{"matches": [{"path": _ROOT}]}], _list(_RULE, 16, 1)),
            }
        ),
        "status": object_of({"parents": _list(_PARENT_STATUS, 32)}),
    },
    ("spec",),
)
