"""The DB manager as a server that is there from the start and costs nothing until it is used."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, TRIAL
from airflow_llmtune.controlplane.grpc_services.listener import LazyListener

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.db_manager import DBManager

_SERVICES = "airflow_llmtune.controlplane.grpc_services.services"


class DBManagerServer:
    def __init__(self, registry: Registry, db_manager: DBManager) -> None:
        self._registry = registry
        self._db_manager = db_manager
        self._listener = LazyListener(self._start_grpc)

    async def start(self, seed: str) -> str:
        """Returns the address with its port."""
        return await self._listener.start(seed)

    async def stop(self) -> None:
        await self._listener.stop()

    async def _start_grpc(self) -> tuple[Any, int]:
        # In a thread, for it takes some tenths of a second.
        services = await asyncio.to_thread(import_module, _SERVICES)
        server = services.make_server(services.DBManagerService(self._db_manager, self._trial_exists))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    def _trial_exists(self, name: str) -> bool:
        """Reports come with the Trial's name alone."""
        namespaces = (entry.key[1] for entry in self._registry.entries(NAMESPACE))
        return any(self._registry.store.get(TRIAL, namespace, name) is not None for namespace in namespaces)
