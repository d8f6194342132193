"""What the API server says about itself: groups, versions and resources, and which version it imitates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.definitions import version_priority
from airflow_llmtune.controlplane.apiserver.reviews import REVIEWS
from airflow_llmtune.controlplane.apiserver.scales import SCALE
from airflow_llmtune.controlplane.apiserver.targets import subresources

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

KUBERNETES_VERSION = "v1.34.0"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCE_VERBS = {"status": ("get", "patch", "update"), "scale": ("get", "patch", "update"), "log": ("get",)}

Document = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One line of ``kubectl api-resources``."""

    kind: Kind
    verbs: tuple[str, ...] = _VERBS
    below: tuple[str, ...] = ()


class Discovery:
    """Answers from the kinds that are served at the moment of the request."""

    def __init__(self, kinds: KindCatalog) -> None:
        self._kinds = kinds

    def document(self, path: str, host: str) -> Document | None:
        """The document at a discovery path, without slashes at its ends; None when it is not one."""
        match path.split("/"):
            case ["api"]:
                return _api_versions(host)
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [*map(_group, self._groups().items())]}
            case ["apis", group] if group in self._groups():
                return {"kind": "APIGroup", "apiVersion": "v1", **_group((group, self._groups()[group]))}
            case ["api", version]:
                return self._resource_list("", version)
            case ["apis", group, version]:
                return self._resource_list(group, version)
            case ["version"]:
                return _version()
            case _:
                return None

    def aggregated(self, path: str) -> Document | None:
        """All of it in one answer, as newer clients ask for."""
        if path not in {"api", "apis"}:
            return None
        groups = {"": ["v1"]} if path == "api" else self._groups()
        items = [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_aggregated_resource(one) for one in self._resources(group, version)],
                    }
                    for version in versions
                ],
            }
            for group, versions in groups.items()
        ]
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}

    def group_versions(self) -> list[tuple[str, str]]:
        return [("", "v1"), *((group, version) for group, found in self._groups().items() for version in found)]

    def _groups(self) -> dict[str, list[str]]:
        """Named groups with their versions, the preferred one first: what kubectl means when it names none."""
        pairs = {(kind.group, kind.version) for kind in (*self._kinds.all(), *REVIEWS) if kind.group}
        groups: dict[str, list[str]] = {}
        for group, version in sorted(pairs, key=lambda pair: (pair[0], version_priority(pair[1]))):
            groups.setdefault(group, []).append(version)
        return groups

    def _resources(self, group: str, version: str) -> list[Resource]:
        found = [Resource(kind, below=subresources(kind)[1:]) for kind in self._kinds.all()]
        found += [Resource(kind, verbs=("create",)) for kind in REVIEWS]
        return [one for one in found if (one.kind.group, one.kind.version) == (group, version)]

    def _resource_list(self, group: str, version: str) -> Document | None:
        resources = self._resources(group, version)
        if not resources:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [entry for one in resources for entry in _entries(one)],
        }


def _api_versions(host: str) -> Document:
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def _group(item: tuple[str, list[str]]) -> Document:
    name, versions = item
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _entries(resource: Resource) -> Iterable[Document]:
    kind = resource.kind
    shared = {"namespaced": kind.namespaced, "kind": kind.name}
    names = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    yield {
        "name": kind.plural,
        "singularName": kind.singular,
        **shared,
        "verbs": list(resource.verbs),
        **{name: value for name, value in names.items() if value},
    }
    for name in resource.below:
        verbs = list(_SUBRESOURCE_VERBS[name])
        # What a subresource is read and written as is told only where it is another kind.
        other = _response_kind(SCALE) if name == "scale" else {}
        yield {"name": f"{kind.plural}/{name}", "singularName": "", **shared, **other, "verbs": verbs}


def _aggregated_resource(resource: Resource) -> Document:
    kind = resource.kind
    response_kind = _response_kind(kind)
    lists = {
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
        "subresources": [
            {
                "subresource": name,
                "responseKind": _response_kind(SCALE) if name == "scale" else response_kind,
                "verbs": list(_SUBRESOURCE_VERBS[name]),
            }
            for name in resource.below
        ],
    }
    return {
        "resource": kind.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(resource.verbs),
        **{name: value for name, value in lists.items() if value},
    }


def _response_kind(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


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
