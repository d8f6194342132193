"""Empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from itertools import islice

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, Kind
from airflow_llmtune.controlplane.controllers.runtime import Controller

_LOOK_AGAIN_SECONDS = 0.1
_PORTION = 500
"""So many objects are deleted in one go, which keeps requests waiting for some 50 ms."""


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
        """Delete content, a portion of each kind; whether some is still there, held by finalizers or running pods."""
        kinds = [kind for kind in self.registry.kinds.resources() if kind.namespaced]
        for kind in kinds:
            for entry in list(islice(self.registry.entries(kind, namespace), _PORTION)):
                if "deletionTimestamp" not in entry.view["metadata"]:
                    self._delete(kind, namespace, entry.key[1])
        return any(next(self.registry.entries(kind, namespace), None) for kind in kinds)

    def _delete(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self.registry.delete(kind, namespace, name)
        except ApiError as error:
            if error.code != 404:
                raise
