"""What a list of many objects costs: in one piece, in pages, compressed."""

from __future__ import annotations

import time

from benchmarks.creation import CONFIG_MAPS
from benchmarks.http_connection import Address, Connection
from benchmarks.served import MEGABYTE

_PAGE = 500
_TIMES = 3


async def whole(address: Address, headers: dict[str, str]) -> dict[str, float]:
    """The best of a few; ``compressed`` is 1 when the server did as the headers ask."""
    best: dict[str, float] = {}
    async with Connection(address) as connection:
        for _ in range(_TIMES):
            begin = time.monotonic()
            answer = await connection.ask("GET", CONFIG_MAPS, headers=headers)
            milliseconds = (time.monotonic() - begin) * 1000
            if not best or milliseconds < best["ms"]:
                compressed = answer.headers.get("content-encoding") == "gzip"
                best = {"ms": milliseconds, "mb": len(answer.body) / MEGABYTE, "compressed": float(compressed)}
    return best


async def paged(address: Address) -> dict[str, float]:
    """All pages one after the other, and the slowest of them."""
    token, slowest, objects, begin = "", 0.0, 0, time.monotonic()
    async with Connection(address) as connection:
        while True:
            page_begin = time.monotonic()
            answer = await connection.ask("GET", f"{CONFIG_MAPS}?limit={_PAGE}&continue={token}")
            slowest = max(slowest, time.monotonic() - page_begin)
            page = answer.json()
            objects += len(page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                break
    return {"ms": (time.monotonic() - begin) * 1000, "slowest_page_ms": slowest * 1000, "objects": objects}
