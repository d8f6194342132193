"""The objects that one owner controls: brought to what is wanted of them, or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.controllers.runtime import is_controlled_by

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]


class OwnedObjects:
    def __init__(self, registry: Registry, owner: Object) -> None:
        self._registry = registry
        self._owner = owner
        self._namespace = owner["metadata"]["namespace"]

    def find(self, kind: Kind, name: str) -> Object | None:
        found = self._registry.find(kind, self._namespace, name)
        return found if found is not None and is_controlled_by(found, self._owner) else None

    def list(self, kind: Kind, label_selector: str) -> list[Object]:
        found, _ = self._registry.list(kind, self._namespace, label_selector=label_selector)
        return [one for one in found if is_controlled_by(one, self._owner)]

    def apply(self, kind: Kind, wanted: Object) -> Object:
        """As stored after it; what is as wanted already is not written again. Labels of others stay."""
        name = wanted["metadata"]["name"]
        found = self._registry.find(kind, self._namespace, name)
        if found is None or not is_controlled_by(found, self._owner):
            return self._registry.create(kind, wanted)
        for field in ("labels", "annotations"):
            merged = {**found["metadata"].get(field, {}), **wanted["metadata"].get(field, {})}
            if merged:
                found["metadata"][field] = merged
        return self._registry.update(kind, {**found, "spec": {**found.get("spec", {}), **wanted["spec"]}})

    def delete(self, kind: Kind, name: str) -> None:
        found = self.find(kind, name)
        if found is not None and "deletionTimestamp" not in found["metadata"]:
            self._registry.delete(kind, self._namespace, name)
