"""One open client for all that one event loop asks a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_llmtune.exceptions import KubernetesApiError

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.hooks.kubeflow import KubeflowHook

__all__ = ["SharedClient"]

# The Airflow connection, or the credential helper that a kubeconfig names, may never answer.
CONNECT_SECONDS = 60.0


@dataclass(eq=False)
class Opened:
    client: KubeflowClient
    connections: AsyncExitStack
    users: int = 0


class SharedClient:
    """
    Opens a client with the first question and keeps it, until it gets no answer or is refused.

    The next question then goes out through a new one, which has read the connection, the kubeconfig, its certificates
    and tokens anew: all of these change in the weeks that a triggerer lives.

    :param new_hook: makes a hook that has read nothing yet.
    """

    def __init__(self, new_hook: Callable[[], KubeflowHook]) -> None:
        self._new_hook = new_hook
        self._current: Opened | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KubeflowClient]:
        """Yield the client, which stays open for the block also when others have given it up."""
        async with self._opening:
            opened = self._current = self._current or await self._connect()
        opened.users += 1
        try:
            yield opened.client
        except KubernetesApiError as error:
            if error.code in {0, 401} and self._current is opened:
                self._current = None
            raise
        finally:
            opened.users -= 1
            if opened is not self._current and not opened.users:
                await opened.connections.aclose()

    async def close(self) -> None:
        """Close what is open; by then nobody uses it."""
        opened, self._current = self._current, None
        if opened is not None and not opened.users:
            await opened.connections.aclose()

    async def _connect(self) -> Opened:
        connections = AsyncExitStack()
        try:
            # The first one imports the Kubernetes client, which takes long enough to hold up everything else.
            hook = await asyncio.to_thread(self._new_hook)
            async with asyncio.timeout(CONNECT_SECONDS):
                return Opened(await connections.enter_async_context(hook.connect()), connections)
        except KubernetesApiError:
            raise
        except TimeoutError as error:
            text = f"The connection or the kubeconfig's helper did not tell within {CONNECT_SECONDS:g} s how to connect"
            raise KubernetesApiError(text) from error
        except Exception as error:
            # Such as of Airflow's own API, which has to be asked for the connection.
            raise KubernetesApiError(f"No client could be made: {type(error).__name__}: {error}") from error
