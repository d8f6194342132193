"""What keeps a deleted object from going at once: finalizers, and for pods the grace period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, POD

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

Propagation = Literal["Background", "Foreground", "Orphan"]

FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"
NAMESPACE_FINALIZER = "kubernetes"

HOLDING_FINALIZER: dict[str, str] = {"Foreground": FOREGROUND_FINALIZER, "Orphan": ORPHAN_FINALIZER}

_DEFAULT_GRACE_SECONDS = 30


def is_held(kind: Kind, obj: Mapping[str, Any]) -> bool:
    """Whether a finalizer must go first. A namespace has one in its spec until it is emptied."""
    if obj["metadata"].get("finalizers"):
        return True
    return kind is NAMESPACE and bool(obj.get("spec", {}).get("finalizers"))


def awaits_kubelet(kind: Kind, obj: Mapping[str, Any]) -> bool:
    """Whether a kubelet still has to confirm that the pod's processes are gone."""
    return kind is POD and bool(obj["metadata"].get("deletionGracePeriodSeconds"))


def grace_seconds(kind: Kind, obj: Mapping[str, Any], wanted: int | None) -> int:
    """0 for everything but a pod that a node may still be running."""
    if kind is not POD or not obj.get("spec", {}).get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    if wanted is None:
        wanted = int(obj["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS))
    return max(0, wanted)


def shortens_grace(metadata: Mapping[str, Any], grace: int) -> bool:
    return grace < int(metadata.get("deletionGracePeriodSeconds") or 0)
