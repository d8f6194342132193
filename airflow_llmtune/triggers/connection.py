"""How operators and triggers, which Airflow builds anew in each process, find the cluster that they were given."""

from __future__ import annotations

from collections.abc import Hashable
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
    poll_interval: float
    api_retry_timeout: float

    @property
    def cluster(self) -> Hashable:
        """What names the cluster and who asks it: equal for all that may share a client."""
        return self.kubernetes_conn_id, self.config_file, self.cluster_context, self.in_cluster

    @cached_property
    def hook(self) -> KubeflowHook:
        return self.new_hook(self.api_retry_timeout)

    def new_hook(self, api_retry_timeout: float) -> KubeflowHook:
        """Return one that has read nothing of the connection yet."""
        # Imported here: at DAG-parse time nobody needs a Kubernetes client.
        from airflow_llmtune.hooks.kubeflow import KubeflowHook

        return KubeflowHook(
            self.kubernetes_conn_id,
            config_file=self.config_file,
            cluster_context=self.cluster_context,
            in_cluster=self.in_cluster,
            api_retry_timeout=api_retry_timeout,
        )
