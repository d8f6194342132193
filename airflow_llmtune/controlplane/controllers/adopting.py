"""Controllers that take back what has lost its owner, for instance when it was deleted without its dependents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.controllers.runtime import (
    Controller,
    Key,
    controller_of,
    is_controlled_by,
    owner_reference,
)

Object = dict[str, Any]


class AdoptingController(Controller):
    name_label: ClassVar[str]
    """Names the owner in what it has made, also when the owner reference is gone."""

    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        metadata = obj["metadata"]
        name = (metadata.get("labels") or {}).get(self.name_label)
        if kind in self.owns and name is not None and controller_of(obj) is None:
            return [(metadata["namespace"], name)]
        return super().keys_for(kind, obj)

    def claim(self, kind: Kind, owner: Object, found: Iterable[Object]) -> list[Object]:
        """Those that the owner controls, now that the ones without a controller have got it."""
        return [one for one in (self._adopted(kind, owner, one) for one in found) if is_controlled_by(one, owner)]

    def _adopted(self, kind: Kind, owner: Object, obj: Object) -> Object:
        metadata = obj["metadata"]
        is_ours = (metadata.get("labels") or {}).get(self.name_label) == owner["metadata"]["name"]
        if controller_of(obj) is not None or "deletionTimestamp" in metadata or not is_ours:
            return obj
        metadata["ownerReferences"] = [*metadata.get("ownerReferences", ()), owner_reference(self.kind, owner)]
        return self.registry.update(kind, obj)
