"""Requests in, text out as it comes. Requests at once take turns, so that a short one need not wait for a long one."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jinja2 import TemplateError

from llmtune_trainer.serve.errors import ApiError
from llmtune_trainer.serve.generation import Finished, Sampling, generate
from llmtune_trainer.serve.served import Card, ServedModel

# More wait: each that has begun keeps what it has read so far in memory.
AT_ONCE = 8


class Engine:
    def __init__(self, served: ServedModel, log: Callable[[str], None]) -> None:
        self.served = served
        self.log = log
        self._generating = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="generate")
        # A tokenizer is not for two threads at once when both encode.
        self._encoding = threading.Lock()

    def card(self, name: str) -> Card:
        card = self.served.cards.get(name)
        if card is None:
            raise ApiError(404, f"The model `{name}` does not exist.", "model")
        return card

    async def encode(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        return await asyncio.to_thread(self._encode, prompts)

    async def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return await asyncio.to_thread(self._encode_chat, messages)

    def allowed_tokens(self, prompts: Sequence[Sequence[int]], asked: int | None, parameter: str) -> int:
        """Return how long the answers may be; raise when the context cannot hold prompt and answer."""
        longest, limit = max(map(len, prompts)), self.served.max_model_len
        if longest + (asked or 1) <= limit:
            return asked or limit - longest
        answer = f" and up to {asked} of the answer" if asked else ""
        raise ApiError(
            400,
            f"This model's maximum context length is {limit} tokens; {longest} of the prompt{answer} are more. "
            f"Fix: shorten `{parameter}`{' or lower `max_tokens`' if asked else ''}.",
            parameter,
        )

    async def answer(self, name: str, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[str | Finished]:
        """Give pieces of text, then how it ended. Closing it stops the generation."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | Finished | Exception] = asyncio.Queue()
        cancelled = threading.Event()

        def tell(item: str | Finished | Exception) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            started = time.monotonic()
            try:
                finished = generate(self.served, name, prompt, sampling, tell, cancelled)
            except Exception as error:  # noqa: BLE001  it belongs to the request, which waits in another thread
                self.log(f"{name}: {traceback.format_exc()}")
                tell(error)
                return
            seconds, ended = time.monotonic() - started, "client gone" if cancelled.is_set() else finished.reason
            self.log(f"{name}: {len(prompt)}+{finished.completion_tokens} tokens, {seconds:.2f} s, {ended}")
            tell(finished)

        waiting = self._generating.submit(work)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    # As an answer: left to uvicorn it would close the connection, on which a proxy sends the next one.
                    raise ApiError(500, f"The generation failed: {type(item).__name__}: {item}") from item
                yield item
                if isinstance(item, Finished):
                    return
        finally:
            cancelled.set()
            waiting.cancel()

    def _encode(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        with self._encoding:
            encoded = [self.served.tokenizer(text)["input_ids"] if isinstance(text, str) else text for text in prompts]
        if not encoded or not all(encoded):
            raise ApiError(400, "`prompt` is empty. Fix: give at least one token of text.", "prompt")
        foreign = [token for tokens in encoded for token in tokens if token >= self.served.vocabulary]
        if foreign:
            raise ApiError(
                400,
                f"`prompt` holds token {foreign[0]}, and the vocabulary ends at {self.served.vocabulary - 1}. "
                "Fix: encode it with this model's tokenizer.",
                "prompt",
            )
        return encoded

    def _encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        tokenizer = self.served.tokenizer
        if not tokenizer.chat_template:
            raise ApiError(
                400,
                "This model has no chat template, so `messages` cannot become a prompt. "
                "Fix: use /v1/completions, or serve a model whose tokenizer has one.",
                "messages",
            )
        try:
            with self._encoding:
                encoded: Any = tokenizer.apply_chat_template(
                    list(messages), add_generation_prompt=True, return_dict=True
                )
        except (TemplateError, TypeError, ValueError) as error:
            raise ApiError(
                400, f"The model's chat template refuses `messages`: {error}. Fix: see its template.", "messages"
            ) from error
        return list(encoded["input_ids"])
