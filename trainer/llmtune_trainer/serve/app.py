"""The HTTP endpoint: OpenAI's routes below /v1, as vLLM has them, and below /openai/v1, as KServe's server has them."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from llmtune_trainer.serve import protocol
from llmtune_trainer.serve.engine import Engine
from llmtune_trainer.serve.errors import ApiError, error_body
from llmtune_trainer.serve.generation import Finished, Sampling
from llmtune_trainer.serve.protocol import ChatRequest, CompletionRequest, GenerationRequest, Shape
from llmtune_trainer.serve.served import Card

PREFIXES = ("/v1", "/openai/v1")
# Nobody is there to read it; the number is what proxies log for it.
CLIENT_GONE = 499

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def build_app(engine: Engine, api_key: str | None) -> FastAPI:
    app = FastAPI(title="llmtune-trainer serve", docs_url=None, redoc_url=None)
    for prefix in PREFIXES:
        app.include_router(_router(engine), prefix=prefix)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _broken)
    if api_key is not None:
        app.add_middleware(_RequireKey, api_key=api_key)
    return app


def _router(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(engine, card) for card in engine.served.cards.values()]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model(engine, engine.card(name))

    @router.post("/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        card = _accepted(engine, body)
        prompts = await engine.encode(body.prompts())
        return await _Answer.of(engine, body, card, prompts, protocol.TEXT, "prompt").respond(request)

    @router.post("/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        card = _accepted(engine, body)
        prompt = await engine.encode_chat([message.for_template() for message in body.messages])
        return await _Answer.of(engine, body, card, [prompt], protocol.CHAT, "messages").respond(request)

    return router


def _accepted(engine: Engine, body: GenerationRequest) -> Card:
    card = engine.card(body.model)
    protocol.refuse_unsupported(body)
    return card


def _model(engine: Engine, card: Card) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": engine.served.created,
        "owned_by": "llmtune-trainer",
        "root": card.root,
        "parent": card.parent,
        "max_model_len": engine.served.max_model_len,
    }


@dataclass(frozen=True)
class _Answer:
    engine: Engine
    card: Card
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    shape: Shape
    streamed: bool
    with_usage: bool

    @classmethod
    def of(
        cls,
        engine: Engine,
        body: GenerationRequest,
        card: Card,
        prompts: Sequence[Sequence[int]],
        shape: Shape,
        parameter: str,
    ) -> _Answer:
        max_tokens = engine.allowed_tokens(prompts, body.asked_tokens(), parameter)
        sampling = body.sampling(max_tokens, engine.served.sampling_defaults)
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return cls(engine, card, prompts, sampling, shape, bool(body.stream), with_usage)

    async def respond(self, request: Request) -> Response:
        head = {"id": self.shape.new_id(), "created": int(time.time()), "model": self.card.name}
        if self.streamed:
            events = self._events(head)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        whole = await _unless_gone(request, self._whole(head))
        return Response(status_code=CLIENT_GONE) if whole is None else JSONResponse(whole)

    async def _whole(self, head: Mapping[str, Any]) -> dict[str, Any]:
        texts = ["" for _ in self.prompts]
        finished: list[Finished] = []
        async with aclosing(self._pieces()) as pieces:
            async for index, piece in pieces:
                if isinstance(piece, Finished):
                    finished.append(piece)
                else:
                    texts[index] += piece
        choices = [
            protocol.choice(index, self.shape.choice(text), end.reason)
            for index, (text, end) in enumerate(zip(texts, finished, strict=True))
        ]
        used = protocol.usage(self.prompts, finished)
        return {**head, "object": self.shape.whole, "choices": choices, "usage": used}

    async def _events(self, head: Mapping[str, Any]) -> AsyncIterator[str]:
        head = {**head, "object": self.shape.chunk}
        finished: list[Finished] = []
        try:
            if self.shape.opening is not None:
                yield _event({**head, "choices": [protocol.choice(0, self.shape.opening, None)]})
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    yield _event({**head, "choices": [self._delta(index, piece)]})
                    if isinstance(piece, Finished):
                        finished.append(piece)
            if self.with_usage:
                yield _event({**head, "choices": [], "usage": protocol.usage(self.prompts, finished)})
        except Exception as error:  # noqa: BLE001  the status was sent long ago; the client learns it this way
            yield _event(error.body() if isinstance(error, ApiError) else _broken_body(error))
        yield "data: [DONE]\n\n"

    def _delta(self, index: int, piece: str | Finished) -> dict[str, Any]:
        if isinstance(piece, Finished):
            return protocol.choice(index, self.shape.delta(""), piece.reason)
        return protocol.choice(index, self.shape.delta(piece), None)

    async def _pieces(self) -> AsyncGenerator[tuple[int, str | Finished]]:
        for index, prompt in enumerate(self.prompts):
            async with aclosing(self.engine.answer(self.card.name, prompt, self.sampling)) as pieces:
                async for piece in pieces:
                    yield index, piece


async def _unless_gone(request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return None when the client left; the work is then stopped."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


class _RequireKey:
    """The routes need the key; /health does not, as a probe has none."""

    def __init__(self, app: Any, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        open_to_all = scope["type"] != "http" or scope["path"] == "/health"
        given = dict(scope.get("headers", [])).get(b"authorization", b"")
        if open_to_all or hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        message = "The API key is missing or wrong. Fix: send the header `Authorization: Bearer <key>`."
        refusal = JSONResponse(error_body(401, message), 401, {"www-authenticate": "Bearer"})
        await refusal(scope, receive, send)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        reason = problems[0]["ctx"]["error"]
        return JSONResponse(error_body(400, f"The body is no JSON: {reason}. Fix: send a JSON object."), 400)
    if isinstance(problems[0].get("input"), bytes):
        given = request.headers.get("content-type")
        told = f"The body's content type is {given!r}. Fix: send the header `Content-Type: application/json`."
        return JSONResponse(error_body(400, told), 400)
    # A value that may be of several types has one problem for each of them.
    found: dict[str, list[Mapping[str, Any]]] = {}
    for problem in problems:
        found.setdefault(_parameter(problem["loc"]), []).append(problem)
    message = " ".join(_problem(name, same) for name, same in found.items())
    return JSONResponse(error_body(400, message, next(iter(found))), 400)


def _problem(name: str, same: Sequence[Mapping[str, Any]]) -> str:
    told = " or ".join(dict.fromkeys(problem["msg"] for problem in same))
    given = "" if same[0]["type"] == "missing" else f"={json.dumps(same[0]['input'], default=str)[:80]}"
    return f"`{name}`{given}: {told}. Fix: correct it."


def _parameter(location: Sequence[str | int]) -> str:
    """Drop `body` in front and, behind the field, the name of the type that was tried."""
    path = takewhile(lambda part: isinstance(part, int) or (part.isidentifier() and part != "str"), location[1:])
    return ".".join(map(str, path)) or "body"


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(error.status_code, str(error.detail)), error.status_code, error.headers)


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse(_broken_body(error), 500)


def _broken_body(error: Exception) -> dict[str, Any]:
    return error_body(500, f"The server failed: {type(error).__name__}: {error}")
