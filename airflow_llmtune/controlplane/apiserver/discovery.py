"""What the API server says about itself: groups, resources, version, and a minimal OpenAPI.

The OpenAPI documents name every kind and the ``fieldValidation`` and ``dryRun`` parameters, so that kubectl
leaves validation to the server instead of asking for schemas; the kinds themselves are open objects.
"""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import KINDS, Kind
from airflow_llmtune.controlplane.apiserver.targets import subresources

KUBERNETES_VERSION = "v1.34.0"

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCE_VERBS = {"status": ("get", "patch", "update"), "log": ("get",)}

# Most stable version first: the one kubectl means when a kind exists in several.
_GROUP_VERSIONS = tuple(
    sorted({(kind.group, kind.version) for kind in KINDS}, key=lambda pair: (pair[0], len(pair[1])))
)


def discovery_document(path: str, host: str) -> dict[str, Any] | None:
    """The document at a discovery path, without slashes at its ends; None when it is not one."""
    match path.split("/"):
        case ["api"]:
            return _api_versions(host)
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in _groups()]}
        case ["apis", group] if group in _groups():
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case ["api", version] if ("", version) in _GROUP_VERSIONS:
            return _resources("", version)
        case ["apis", group, version] if (group, version) in _GROUP_VERSIONS:
            return _resources(group, version)
        case ["version"]:
            return _version()
        case ["openapi", "v2"]:
            return _openapi_v2()
        case ["openapi", "v3"]:
            return _openapi_v3_index()
        case ["openapi", "v3", *rest]:
            return _openapi_v3("/".join(rest))
        case _:
            return None


def _groups() -> tuple[str, ...]:
    return tuple(dict.fromkeys(group for group, _ in _GROUP_VERSIONS if group))


def _api_versions(host: str) -> dict[str, Any]:
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def _group(name: str) -> dict[str, Any]:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for group, version in _GROUP_VERSIONS
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resources(group: str, version: str) -> dict[str, Any]:
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for kind in kinds for entry in _resource_entries(kind)],
    }


def _resource_entries(kind: Kind) -> list[dict[str, Any]]:
    shared = {"namespaced": kind.namespaced, "kind": kind.name}
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        **shared,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    below = [
        {"name": f"{kind.plural}/{name}", "singularName": "", **shared, "verbs": list(_SUBRESOURCE_VERBS[name])}
        for name in subresources(kind)
        if name
    ]
    return [main, *below]


def _version() -> dict[str, str]:
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": KUBERNETES_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def _schema_name(kind: Kind) -> str:
    reversed_group = ".".join(reversed((kind.group or "core.k8s.io").split(".")))
    return f"{reversed_group}.{kind.version}.{kind.name}"


def _kind_marker(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def _schema(kind: Kind) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{kind.name} of {kind.api_version}; its fields are not described by this server.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-group-version-kind": [_kind_marker(kind)],
    }


def _object_path(kind: Kind) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    return f"{root}{scope}/{kind.plural}/{{name}}"


def _patch_operation(kind: Kind, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "patch": {
            "operationId": f"patch{kind.version.title()}{kind.name}",
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": _kind_marker(kind),
        }
    }


_SERVER_SIDE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


def _openapi_v2() -> dict[str, Any]:
    parameters = [{"name": name, "in": "query", "type": "string"} for name in _SERVER_SIDE_PARAMETERS]
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": {_object_path(kind): _patch_operation(kind, parameters) for kind in KINDS},
        "definitions": {_schema_name(kind): _schema(kind) for kind in KINDS},
    }


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _openapi_v3_index() -> dict[str, Any]:
    roots = [_root(group, version) for group, version in _GROUP_VERSIONS]
    return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}


def _openapi_v3(root: str) -> dict[str, Any] | None:
    kinds = [kind for kind in KINDS if _root(kind.group, kind.version) == root]
    if not kinds:
        return None
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _SERVER_SIDE_PARAMETERS]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": {_object_path(kind): _patch_operation(kind, parameters) for kind in kinds},
        "components": {"schemas": {_schema_name(kind): _schema(kind) for kind in kinds}},
    }
