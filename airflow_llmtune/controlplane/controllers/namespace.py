"""Empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.controllers.emptying import LOOK_AGAIN_SECONDS, is_emptied
from airflow_llmtune.controlplane.controllers.runtime import Controller


class NamespaceController(Controller):
    kind = NAMESPACE

    async def reconcile(self, namespace: str, name: str) -> float | None:  # noqa: ARG002  cluster-scoped
        home = self.registry.find(NAMESPACE, None, name)
        if home is None or "deletionTimestamp" not in home["metadata"]:
            return None
        kinds = [kind for kind in self.registry.kinds.resources() if kind.namespaced]
        if not await is_emptied(self.registry, kinds, name):
            return LOOK_AGAIN_SECONDS
        home["spec"]["finalizers"] = []
        self.registry.update(NAMESPACE, home)
        return None
