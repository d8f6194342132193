"""Empties a custom resource whose definition is being deleted, then lets the definition go."""

from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.definitions import CLEANUP_FINALIZER
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION
from airflow_llmtune.controlplane.controllers.emptying import LOOK_AGAIN_SECONDS, is_emptied
from airflow_llmtune.controlplane.controllers.runtime import Controller


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
        if not await is_emptied(self.registry, kinds):
            return LOOK_AGAIN_SECONDS
        definition["metadata"]["finalizers"] = [one for one in finalizers if one != CLEANUP_FINALIZER]
        self.registry.update(CUSTOM_RESOURCE_DEFINITION, definition)
        for kind in kinds:
            self.registry.end_watches(kind)
        return None
