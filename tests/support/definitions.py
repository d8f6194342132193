"""A CustomResourceDefinition that tests of more than one file send."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
SPEC_SCHEMA: Object = {
    "type": "object",
    "description": "What a widget should be.",
    "required": ["size"],
    "properties": {
        "size": {"type": "string", "enum": ["s", "m"]},
        "count": {"type": "integer", "minimum": 1, "default": 3},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "weight": {"type": "number"}}},
        },
    },
}


def version(name: str = "v1", *, storage: bool = True, **fields: Any) -> Object:
    schema = {"type": "object", "properties": {"spec": SPEC_SCHEMA, "status": {"type": "object"} | OPEN}}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        **fields,
    }


OPEN: Object = {"x-kubernetes-preserve-unknown-fields": True}


def definition(*versions: Object, plural: str = "widgets", kind: str = "Widget", **spec: Any) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [f"{plural}-short"]},
            "versions": list(versions) or [version()],
            **spec,
        },
    }


def widget(name: str = "w", **spec: Any) -> Object:
    wanted = {"size": "s"} | spec
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": wanted}
