"""Which kinds one control plane serves: the built-in ones and those its CustomResourceDefinitions make.

It is derived from the definitions in the store, so a store that is opened again brings its kinds with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.built_in_columns import BUILT_IN_COLUMNS
from airflow_llmtune.controlplane.apiserver.definitions import (
    BUILT_IN_NAMES,
    CustomVersion,
    custom_versions,
    prepare_definition,
)
from airflow_llmtune.controlplane.apiserver.errors import invalid, method_not_allowed
from airflow_llmtune.controlplane.apiserver.kinds import (
    CUSTOM_RESOURCE_DEFINITION,
    KINDS,
    Kind,
    find_kind,
    find_resource,
)
from airflow_llmtune.controlplane.apiserver.structural import causes, fill_defaults, prune

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.columns import Column
    from airflow_llmtune.controlplane.store import Store

Object = dict[str, Any]


class KindCatalog:
    """May be made more than once for a store: it keeps nothing that the store does not hold."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[tuple[str, str, str], CustomVersion] = {}
        self._changed = asyncio.Event()
        self._changed.set()
        # Never read, only woken: what is served is made anew from all definitions.
        self._subscription = store.subscribe(CUSTOM_RESOURCE_DEFINITION, wake=self._changed)

    def all(self) -> tuple[Kind, ...]:
        """Each version of each resource; the preferred version of a resource comes first."""
        return (*KINDS, *(version.kind for version in self._custom().values()))

    def custom(self) -> tuple[Kind, ...]:
        """The resources that definitions make, each once."""
        return tuple(dict.fromkeys(version.kind for version in self._custom().values()))

    def resources(self) -> tuple[Kind, ...]:
        """Each resource once, whatever its versions."""
        return tuple(dict.fromkeys(self.all()))

    def find(self, api_version: str, kind_name: str) -> Kind | None:
        """The kind of a manifest."""
        wanted = (api_version, kind_name)
        custom = (one.kind for one in self._custom().values() if (one.kind.api_version, one.kind.name) == wanted)
        return find_kind(*wanted) or next(custom, None)

    def find_resource(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind behind a URL."""
        built_in = find_resource(group, version, plural)
        if built_in is not None:
            return built_in
        found = self._custom().get((group, version, plural))
        return found.kind if found else None

    def version(self, kind: Kind) -> CustomVersion | None:
        """What a definition says of a kind; None for built-in ones."""
        return self._custom().get((kind.group, kind.version, kind.plural))

    def columns(self, kind: Kind) -> tuple[Column, ...]:
        version = self.version(kind)
        return BUILT_IN_COLUMNS[kind] if version is None else version.columns

    def prepare(self, kind: Kind, obj: Object, old: Object | None, now: str) -> None:
        """In place, for an object on its way in: what the definition of its kind asks for."""
        if kind == CUSTOM_RESOURCE_DEFINITION:
            prepare_definition(obj, old, self._custom().values(), now)
            return
        version = self.version(kind)
        if version is None:
            return
        if version.is_terminating and old is None:
            raise method_not_allowed("create not allowed while custom resource definition is terminating")
        prune(obj, version.schema, is_object=True)
        fill_defaults(obj, version.schema)
        found = causes(obj, version.schema)
        if found:
            raise invalid(kind, obj["metadata"].get("name", ""), found)

    def _custom(self) -> dict[tuple[str, str, str], CustomVersion]:
        if self._changed.is_set():
            self._changed.clear()
            entries = self._store.scan(CUSTOM_RESOURCE_DEFINITION)
            versions = [
                version
                for entry in entries
                if entry.key[1] not in BUILT_IN_NAMES
                for version in custom_versions(entry.view)
            ]
            self._versions = {(one.kind.group, one.kind.version, one.kind.plural): one for one in versions}
        return self._versions
