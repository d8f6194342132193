"""Empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import KINDS, NAMESPACE, Kind
from airflow_llmtune.controlplane.controllers.runtime import Controller

_LOOK_AGAIN_SECONDS = 0.1


class NamespaceController(Controller):
    kind = NAMESPACE

    async def reconcile(self, namespace: str, name: str) -> float | None:  # noqa: ARG002  cluster-scoped
        home = self.registry.find(NAMESPACE, None, name)
        if home is None or "deletionTimestamp" not in home["metadata"]:
            return None
        if self._empty(name):
            return _LOOK_AGAIN_SECONDS
        home["spec"]["finalizers"] = []
        self.registry.update(NAMESPACE, home)
        return None

    def _empty(self, namespace: str) -> bool:
        """Delete all content; whether some is still there, held by finalizers or running pods."""
        for kind in KINDS:
            for entry in list(self.registry.entries(kind, namespace)) if kind.namespaced else ():
                if "deletionTimestamp" not in entry.view["metadata"]:
                    self._delete(kind, namespace, entry.key[1])
        return any(next(self.registry.entries(kind, namespace), None) for kind in KINDS if kind.namespaced)

    def _delete(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self.registry.delete(kind, namespace, name)
        except ApiError as error:
            if error.code != 404:
                raise
