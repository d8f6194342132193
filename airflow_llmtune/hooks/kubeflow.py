"""How a task gets to its cluster: an Airflow connection, a kubeconfig, or the pod's own service account."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.sdk.exceptions import AirflowException
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from yaml import YAMLError

from airflow_llmtune.exceptions import INVALID_CONFIGURATION, KubernetesApiError
from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["KubeflowHook"]


class KubeflowHook(AsyncKubernetesHook):  # type: ignore[misc]  # the provider ships no types
    """
    Connects to Kubernetes with an Airflow connection of type ``kubernetes``.

    Unlike its base it honours ``config_file`` and, with nothing configured, falls back to the pod's own
    service account.

    :param kubernetes_conn_id: the connection; ``None`` for none. A missing ``kubernetes_default`` counts as empty.
    :param config_file: path of a kubeconfig; goes before whatever the connection says.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the pod's own service account.
    :param api_retry_timeout: seconds for which a request that fails in passing (no answer, 401, 429, 5xx) is retried.
    """

    hook_name = "Kubeflow"

    def __init__(
        self,
        kubernetes_conn_id: str | None = AsyncKubernetesHook.default_conn_name,
        *,
        config_file: str | None = None,
        cluster_context: str | None = None,
        in_cluster: bool | None = None,
        api_retry_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            kubernetes_conn_id=kubernetes_conn_id,
            config_file=config_file,
            cluster_context=cluster_context,
            in_cluster=in_cluster,
        )
        self.api_retry_timeout = api_retry_timeout

    async def _get_field(self, field_name: str) -> Any:
        """Let the arguments of the task go before the fields of the connection."""
        if field_name == "kube_config_path" and self.config_file is not None:
            return self.config_file
        if field_name in {"kube_config", "in_cluster"} and self.config_file is not None:
            return None
        if field_name in {"kube_config", "kube_config_path"} and self.in_cluster:
            return None
        # The connection form stores a field left empty as "".
        return await super()._get_field(field_name) or None

    async def _load_config(self) -> None:
        try:
            if await self._is_unconfigured():
                self.in_cluster = True
            await super()._load_config()
            if not self.client_configuration.api_key.get("BearerToken", "").isprintable():
                raise ValueError("the token has a line break in it, or something else that cannot be sent")
        except (ConfigException, AirflowException, YAMLError, OSError, TypeError, ValueError, AttributeError) as error:
            source = self.config_file or f"the connection {self.conn_id!r}"
            raise KubernetesApiError(
                f"No usable Kubernetes configuration in {source}: {_tell(error)}. Fix: set `config_file`, or "
                f"`kube_config_path` of the connection, to a kubeconfig that this process can read",
                reason=INVALID_CONFIGURATION,
            ) from error
        if str(await self._get_field("disable_verify_ssl")).lower() == "true":
            self.client_configuration.verify_ssl = False
        # Each watch holds a connection: a limit would let the next request wait for ever. 0: as many as are asked for.
        self.client_configuration.connection_pool_maxsize = 0

    async def _is_unconfigured(self) -> bool:
        for name in ("in_cluster", "kube_config_path", "kube_config"):
            if await self._get_field(name):
                return False
        return not self.in_cluster and not _has_default_kubeconfig() and "KUBERNETES_SERVICE_HOST" in os.environ

    async def default_namespace(self) -> str:
        """Return the namespace that the connection names, else ``default``."""
        return str(await self._get_field("namespace") or "default")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[KubeflowClient]:
        """Open one connection pool and keep it for the whole block."""
        async with self.get_conn() as api:
            yield KubeflowClient(api, self.api_retry_timeout, self._renew_credentials)
        # Sockets that were just closed are let go in the loop's next round.
        await asyncio.sleep(0)

    async def _renew_credentials(self) -> None:
        """Load the configuration again, into the same object that open clients read their token from."""
        self._config_loaded = False
        await self._load_config()


def _tell(error: Exception) -> str:
    # PyYAML quotes the line that it cannot read, and that may hold a token.
    text = getattr(error, "problem", "it is no YAML") if isinstance(error, YAMLError) else str(error)
    return f"{type(error).__name__}: {text}"


def _has_default_kubeconfig() -> bool:
    paths = KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep)
    return any(Path(path).expanduser().exists() for path in paths)
