"""The other end of a request: its body, which may have to be sent twice, and whether anybody still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Receive

_MOST_KEPT_BYTES = 1024 * 1024


class Client:
    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._has_body = has_body
        self._kept: list[bytes] = []
        self._size = 0
        self._is_gone = False
        self._ended = asyncio.Event()
        if not has_body:
            self._ended.set()

    @property
    def can_send_again(self) -> bool:
        """Whether all of the body that has been handed on is still here."""
        return self._size <= _MOST_KEPT_BYTES

    def body(self) -> AsyncIterator[bytes] | None:
        """As it arrives; the second time, what has arrived and then the rest."""
        return self._pieces() if self._has_body else None

    async def while_it_waits(self, work: Coroutine[Any, Any, None]) -> None:
        """Run until it ends or the client goes away."""
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self._leave())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not tasks[0].cancelled():
            tasks[0].result()

    async def _pieces(self) -> AsyncIterator[bytes]:
        for piece in list(self._kept):
            yield piece
        while not self._ended.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_gone = True
                self._ended.set()
                await asyncio.Event().wait()  # The work is cancelled: a body cut short must not look complete.
            yield self._keep(message)

    def _keep(self, message: Any) -> bytes:
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        if self.can_send_again:
            self._kept.append(piece)
        else:
            self._kept.clear()
        if not message.get("more_body", False):
            self._ended.set()
        return piece

    async def _leave(self) -> None:
        """Only one may receive at a time: until the body has ended it is who reads that."""
        await self._ended.wait()
        while not self._is_gone:
            self._is_gone = (await self._receive())["type"] == "http.disconnect"
