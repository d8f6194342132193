"""Answers as a bad network delivers them: not at all, slowly, or broken off in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.faults import Fault

Address = tuple[str, int]
Abort = Callable[[Address], None]
"""Break the connection of a client."""

_PIECES = 20


class Refusal:
    """The connection breaks before a byte is answered."""

    def __init__(self, abort: Abort) -> None:
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI
        self._abort(scope["client"])
        # The server calls it an error of ours to end without an answer while the client is there.
        while (await receive())["type"] != "http.disconnect":
            pass


class SpoiltAnswer:
    """Another answer, whose body is slow or ends too early."""

    def __init__(self, answer: ASGIApp, fault: Fault, abort: Abort) -> None:
        self._answer = answer
        self._fault = fault
        self._abort = abort
        self._left = fault.cut_body_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def spoil(message: Message) -> None:
            if message["type"] == "http.response.body":
                await self._send_body(scope["client"], message, send)
            else:
                await send(message)

        await self._answer(scope, receive, spoil)

    async def _send_body(self, client: Address, message: Message, send: Send) -> None:
        body: bytes = message.get("body", b"")
        is_cut = self._left is not None and len(body) >= self._left
        if is_cut:
            body = body[: self._left]
        elif self._left is not None:
            self._left -= len(body)
        size = max(1, -(-len(body) // (_PIECES if self._fault.body_seconds else 1)))
        starts = range(0, len(body), size)
        for start in starts:
            await asyncio.sleep(self._fault.body_seconds / len(starts))
            await send({**message, "body": body[start : start + size], "more_body": True})
        if is_cut:
            self._abort(client)
        elif not message.get("more_body"):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def spoilt(answer: ASGIApp, fault: Fault | None, abort: Abort) -> ASGIApp:
    if fault is None or (fault.cut_body_after is None and not fault.body_seconds):
        return answer
    return SpoiltAnswer(answer, fault, abort)
