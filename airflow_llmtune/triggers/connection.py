"""How operators and triggers, which Airflow builds anew in each process, find the cluster that they were given."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_llmtune.hooks.kubeflow import KubeflowHook

__all__ = ["ClusterConnection"]


class ClusterConnection:
    """Makes the hook of the arguments that an operator hands to its trigger unchanged."""

    kubernetes_conn_id: str | None
    config_file: str | None
    cluster_context: str | None
    in_cluster: bool | None
    api_retry_timeout: float

    @cached_property
    def hook(self) -> KubeflowHook:
        # Imported here: at DAG-parse time nobody needs a Kubernetes client.
        from airflow_llmtune.hooks.kubeflow import KubeflowHook

        return KubeflowHook(
            self.kubernetes_conn_id,
            config_file=self.config_file,
            cluster_context=self.cluster_context,
            in_cluster=self.in_cluster,
            api_retry_timeout=self.api_retry_timeout,
        )
