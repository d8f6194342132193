"""An embedded Kubernetes control plane whose pods are local processes.

It speaks the Kubernetes API over HTTPS on loopback, behaves like Katib and the training operator, and is
meant for demos, tests and DAG development on a laptop. It is not a cluster: one node, no network isolation,
no containers, no users or roles. It imports nothing of Airflow nor of the rest of this distribution; the two
meet only over HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.plane import ControlPlane

__all__ = ["ControlPlane"]


def __getattr__(name: str) -> Any:
    """Load the plane only when it is asked for: it pulls in uvicorn, cryptography and Optuna."""
    if name == "ControlPlane":
        from airflow_llmtune.controlplane.plane import ControlPlane

        return ControlPlane
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
