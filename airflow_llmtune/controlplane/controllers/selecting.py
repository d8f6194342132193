"""Controllers whose objects are theirs by a label selector: they take in what matches it and let go what does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.apiserver.label_selectors import matches
from airflow_llmtune.controlplane.controllers.runtime import (
    Controller,
    Key,
    controller_of,
    is_controlled_by,
    owner_reference,
)
from airflow_llmtune.controlplane.store import Entry

Object = dict[str, Any]


class SelectingController(Controller):
    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        if kind in self.owns and controller_of(obj) is None:
            return self._takers(obj)
        return super().keys_for(kind, obj)

    def _takers(self, orphan: Object) -> list[Key]:
        labels = orphan["metadata"].get("labels")
        owners = self.registry.entries(self.kind, orphan["metadata"]["namespace"]) if labels else ()
        selectors = ((one.key, one.view.get("spec", {}).get("selector")) for one in owners)
        # One that was stored before the API server checked this kind may have none.
        return [key for key, selector in selectors if selector and matches(selector, labels)]

    def claim(self, kind: Kind, owner: Object) -> list[Object]:
        """Those that the owner controls, after it has taken in orphans and let go what it does not select any more."""
        found = [entry.copy() for entry in self._concerned(kind, owner)]
        if "deletionTimestamp" in owner["metadata"]:
            return [one for one in found if is_controlled_by(one, owner)]
        settled = [self._settled(kind, owner, one) for one in found]
        return [one for one in settled if one is not None]

    def _concerned(self, kind: Kind, owner: Object) -> Iterator[Entry]:
        selector, uid = owner["spec"]["selector"], owner["metadata"]["uid"]
        for entry in self.registry.entries(kind, owner["metadata"]["namespace"]):
            obj = dict(entry.view)
            controller = controller_of(obj)
            if controller is None:
                if "deletionTimestamp" not in obj["metadata"] and matches(selector, obj["metadata"].get("labels")):
                    yield entry
            elif controller["uid"] == uid:
                yield entry

    def _settled(self, kind: Kind, owner: Object, obj: Object) -> Object | None:
        metadata, own = obj["metadata"], owner_reference(self.kind, owner)
        selected = matches(owner["spec"]["selector"], metadata.get("labels"))
        references = metadata.get("ownerReferences", [])
        if controller_of(obj) is None:
            metadata["ownerReferences"] = [*(one for one in references if one["uid"] != own["uid"]), own]
            return self.registry.update(kind, obj)
        if selected:
            return obj
        if "deletionTimestamp" not in metadata:
            metadata["ownerReferences"] = [one for one in references if one["uid"] != own["uid"]]
            self.registry.update(kind, obj)
        return None
