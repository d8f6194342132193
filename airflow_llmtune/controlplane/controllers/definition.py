"""Empties a custom resource whose definition is being deleted, then lets the definition go."""

from __future__ import annotations

from itertools import islice

from airflow_llmtune.controlplane.apiserver.definitions import CLEANUP_FINALIZER
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, Kind
from airflow_llmtune.controlplane.controllers.runtime import Controller

_LOOK_AGAIN_SECONDS = 0.1
_PORTION = 500


class DefinitionController(Controller):
    kind = CUSTOM_RESOURCE_DEFINITION

    async def reconcile(self, namespace: str, name: str) -> float | None:  # noqa: ARG002  cluster-scoped
        definition = self.registry.find(CUSTOM_RESOURCE_DEFINITION, None, name)
        if definition is None or "deletionTimestamp" not in definition["metadata"]:
            return None
        finalizers = definition["metadata"].get("finalizers") or []
        if CLEANUP_FINALIZER not in finalizers:
            return None
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        kinds = [one for one in self.registry.kinds.resources() if (one.group, one.plural) == (group, plural)]
        if any(self._empty(kind) for kind in kinds):
            return _LOOK_AGAIN_SECONDS
        definition["metadata"]["finalizers"] = [one for one in finalizers if one != CLEANUP_FINALIZER]
        self.registry.update(CUSTOM_RESOURCE_DEFINITION, definition)
        return None

    def _empty(self, kind: Kind) -> bool:
        """Delete objects; whether some are still there."""
        for entry in list(islice(self.registry.entries(kind), _PORTION)):
            if "deletionTimestamp" not in entry.view["metadata"]:
                self._delete(kind, *entry.key)
        return next(self.registry.entries(kind), None) is not None

    def _delete(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self.registry.delete(kind, namespace, name)
        except ApiError as error:
            if error.code != 404:
                raise
