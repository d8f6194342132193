"""How many objects a second clients can create."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time

from benchmarks.http_connection import Address, Connection

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
_TEXT_BYTES = 350


def config_map(name: str) -> bytes:
    """Weighs about what a small Trial does, and compresses no better."""
    text = hashlib.shake_128(name.encode()).hexdigest(_TEXT_BYTES)
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}
    return json.dumps(made).encode()


async def create(address: Address, prefix: str, count: int, connections: int) -> float:
    """Create so many objects over so many connections; returns objects a second."""
    numbers = itertools.count()

    async def work(connection: Connection) -> None:
        while (number := next(numbers)) < count:
            await connection.ask("POST", CONFIG_MAPS, config_map(f"{prefix}-{number}"))

    async with asyncio.TaskGroup() as opening:
        opened = [opening.create_task(Connection(address).__aenter__()) for _ in range(connections)]
    ready = [task.result() for task in opened]
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for connection in ready:
            group.create_task(work(connection))
    seconds = time.monotonic() - begin
    for connection in ready:
        await connection.__aexit__()
    return count / seconds
