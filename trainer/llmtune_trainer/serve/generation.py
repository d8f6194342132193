"""From a prompt's tokens to pieces of text, with what ends them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from llmtune_trainer.serve.served import ServedModel

# So many tokens of the prompt tell the tokenizer whether a word begins with a space.
CONTEXT_TOKENS = 5
# Switching to another adapter takes about as long as a token of a small model.
TURN_TOKENS = 8
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: tuple[str, ...]

    @property
    def greedy(self) -> bool:
        # vLLM's threshold.
        return self.temperature < 1e-5

    def config(self, end_tokens: Sequence[int]) -> GenerationConfig:
        drawn = {} if self.greedy else self._drawn()
        return GenerationConfig(
            max_new_tokens=self.max_tokens,
            do_sample=not self.greedy,
            repetition_penalty=self.repetition_penalty,
            eos_token_id=list(end_tokens) or None,
            pad_token_id=end_tokens[0] if end_tokens else 0,
            **drawn,
        )

    def _drawn(self) -> dict[str, float | int | None]:
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0),
            "min_p": self.min_p or None,
        }


@dataclass(frozen=True)
class Finished:
    reason: Literal["stop", "length"]
    completion_tokens: int


class Detokenizer:
    """Text as soon as it is certain: a character may take several tokens, and a word's space depends on the one before.

    It decodes a window of tokens without and with the new one; the difference is new text.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-CONTEXT_TOKENS:])
        self._start = 0
        self._told = len(self._ids)

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self._new_text()
        if not text or text.endswith(INCOMPLETE):
            return ""
        self._start, self._told = self._told, len(self._ids)
        return text

    def rest(self) -> str:
        return self._new_text()

    def _new_text(self) -> str:
        told = self._decode(self._ids[self._start : self._told])
        return self._decode(self._ids[self._start :])[len(told) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class StopStrings:
    """Lets text pass up to the first of the stop strings, and keeps back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._kept = ""
        self.hit = False

    def feed(self, text: str) -> str:
        self._kept += text
        found = [index for stop in self._stops if (index := self._kept.find(stop)) >= 0]
        self.hit = bool(found)
        cut = min(found) if found else len(self._kept) - self._possible_beginning()
        passed, self._kept = self._kept[:cut], "" if found else self._kept[cut:]
        return passed

    def rest(self) -> str:
        return self._kept

    def _possible_beginning(self) -> int:
        longest = min(len(self._kept), max((len(stop) - 1 for stop in self._stops), default=0))
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._kept[-n:]) for stop in self._stops)), 0)


class _Watcher(StoppingCriteria):  # type: ignore[misc]
    """Sees each new token: passes its text on, and ends the generation at a stop string or when nobody listens."""

    def __init__(
        self, text: Detokenizer, stops: StopStrings, ends: frozenset[int], tell: Callable[[str], None]
    ) -> None:
        self.tokens = 0
        self.ended = False
        self._text = text
        self._stops = stops
        self._ends = ends
        self._tell = tell

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        token = int(input_ids[0, -1])
        self.tokens += 1
        self.ended = token in self._ends
        if not self.ended and (text := self._stops.feed(self._text.add(token))):
            self._tell(text)
        return torch.tensor([self.ended or self._stops.hit], device=input_ids.device)


class _Turns(StoppingCriteria):  # type: ignore[misc]
    """Lets other requests generate now and then, each with its own adapter and its own random numbers."""

    def __init__(self, served: ServedModel, name: str, seed: int | None, cancelled: threading.Event) -> None:
        self._served = served
        self._name = name
        self._seeds = random.Random(seed)  # noqa: S311  samples text, guards nothing
        self._cancelled = cancelled
        self._tokens = 0

    def begin(self) -> None:
        self._served.activate(self._name)
        # For each token, since torch has one generator for all requests.
        torch.manual_seed(self._seeds.getrandbits(63))

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._tokens += 1
        if self._tokens % TURN_TOKENS == 0:
            self._served.turns.let_others()
        self.begin()
        return torch.tensor([self._cancelled.is_set()], device=input_ids.device)


def generate(
    served: ServedModel,
    name: str,
    prompt: Sequence[int],
    sampling: Sampling,
    tell: Callable[[str], None],
    cancelled: threading.Event,
) -> Finished:
    text, stops = Detokenizer(served.tokenizer, prompt), StopStrings(sampling.stop)
    watcher = _Watcher(text, stops, served.end_tokens, tell)
    turns = _Turns(served, name, sampling.seed, cancelled)
    with served.turns.turn(), torch.inference_mode():
        turns.begin()
        ids = torch.tensor([list(prompt)], device=served.model.device)
        served.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=sampling.config(sorted(served.end_tokens)),
            stopping_criteria=StoppingCriteriaList([watcher, turns]),
        )
    if not stops.hit and (rest := stops.feed(text.rest()) + stops.rest()):
        tell(rest)
    return Finished("stop" if watcher.ended or stops.hit else "length", watcher.tokens)
