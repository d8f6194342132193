"""The schemas the API server shows: OpenAPI v2 and v3, enough for ``kubectl explain`` and for server-side validation.

A kind whose fields nobody describes is an open object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.discovery import KUBERNETES_VERSION, Discovery

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

Schema = dict[str, Any]

OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
EMPTY_V2 = b"\n\x032.0"
"""A document that says nothing but its version: kubectl reads version 2 in no other form, and only when version 3 does
not know the kind of a manifest. It then says that the kind is not there."""

_SERVER_SIDE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")
_TYPE_META = {
    "apiVersion": {
        "type": "string",
        "description": "The version of the schema that this object is written in.",
    },
    "kind": {"type": "string", "description": "The kind of the object, in CamelCase."},
    "metadata": {**OPEN, "description": "Name, namespace, labels, annotations and owners of the object."},
}


class OpenApi:
    """``described`` has the schemas of built-in kinds, as far as somebody knows their fields."""

    def __init__(self, kinds: KindCatalog, described: Mapping[Kind, Schema]) -> None:
        self._kinds = kinds
        self._described = described
        self._discovery = Discovery(kinds)

    def document(self, path: str) -> dict[str, Any] | None:
        """The document at a path without slashes at its ends; None when it is not one."""
        match path.split("/"):
            case ["openapi", "v2"]:
                return self._v2()
            case ["openapi", "v3"]:
                return self._v3_index()
            case ["openapi", "v3", *rest]:
                return self._v3("/".join(rest))
            case _:
                return None

    def schema(self, kind: Kind) -> Mapping[str, Any] | None:
        """What is known of the fields of a kind, whoever says so."""
        version = self._kinds.version(kind)
        return version.schema if version is not None else self._described.get(kind)

    def _v2(self) -> dict[str, Any]:
        parameters = [{"name": name, "in": "query", "type": "string"} for name in _SERVER_SIDE_PARAMETERS]
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
            "paths": _paths(self._kinds.all(), parameters),
            "definitions": {_schema_name(kind): self._shown(kind) for kind in self._kinds.all()},
        }

    def _v3_index(self) -> dict[str, Any]:
        roots = [_root(group, version) for group, version in self._discovery.group_versions()]
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}

    def _v3(self, root: str) -> dict[str, Any] | None:
        kinds = [kind for kind in self._kinds.all() if _root(kind.group, kind.version) == root]
        if not kinds:
            return None
        parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _SERVER_SIDE_PARAMETERS]
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
            "paths": _paths(kinds, parameters),
            "components": {"schemas": {_schema_name(kind): self._shown(kind) for kind in kinds}},
        }

    def _shown(self, kind: Kind) -> Schema:
        known = self.schema(kind)
        schema: Schema = {"type": "object", **(known or {})}
        schema["properties"] = {**_TYPE_META, **schema.get("properties", {}), "metadata": _TYPE_META["metadata"]}
        if known is None:
            schema["x-kubernetes-preserve-unknown-fields"] = True
            schema["description"] = f"{kind.name} of {kind.api_version}; its fields are not described by this server."
        schema["x-kubernetes-group-version-kind"] = [_marker(kind)]
        return schema


def _schema_name(kind: Kind) -> str:
    reversed_group = ".".join(reversed((kind.group or "core.k8s.io").split(".")))
    return f"{reversed_group}.{kind.version}.{kind.name}"


def _marker(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _paths(kinds: Iterable[Kind], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {_object_path(kind): _operations(kind, parameters) for kind in kinds}


def _object_path(kind: Kind) -> str:
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    return f"/{_root(kind.group, kind.version)}{scope}/{kind.plural}/{{name}}"


def _operations(kind: Kind, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "patch": {
            "operationId": f"patch{kind.version.title()}{kind.name}",
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": _marker(kind),
        }
    }
