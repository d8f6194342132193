"""OpenAI's requests and answers, as far as this server knows them.

A field that would change the answer and is not known is refused: an answer that silently ignored it would be wrong.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llmtune_trainer.serve.errors import ApiError
from llmtune_trainer.serve.generation import Finished, Sampling

# Fields without influence on the answer.
HARMLESS = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls",
})  # fmt: skip
# What clients send by default for what this server cannot do.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
REMEDIES = {
    "n": "send one request per answer",
    "best_of": "send one request per answer",
    "stream_options": "set stream to true, or leave it out",
}
# vLLM's number for a completion; a chat goes on until the model ends it or its context is full.
COMPLETION_TOKENS = 16


def _encodable(text: str) -> str:
    r"""JSON can write half a character (`"\ud83d"`), which no tokenizer takes and no answer can repeat."""
    text.encode()
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Stop = Annotated[str, Field(min_length=1)]
Token = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class GenerationRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: Text
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | list[Stop] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    def asked_tokens(self) -> int | None:
        return self.max_tokens

    def sampling(self, max_tokens: int, defaults: Mapping[str, float]) -> Sampling:
        def chosen(name: str, otherwise: float) -> Any:
            value = getattr(self, name)
            return defaults.get(name, otherwise) if value is None else value

        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=max_tokens,
            temperature=chosen("temperature", 1.0),
            top_p=chosen("top_p", 1.0),
            top_k=chosen("top_k", 0),
            min_p=chosen("min_p", 0.0),
            repetition_penalty=chosen("repetition_penalty", 1.0),
            seed=self.seed,
            stop=tuple(stop),
        )


class CompletionRequest(GenerationRequest):
    prompt: Text | list[Token] | list[Text] | list[list[Token]]

    def asked_tokens(self) -> int | None:
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    def prompts(self) -> Sequence[str | list[int]]:
        """Return each prompt, as text or as tokens."""
        several = isinstance(self.prompt, list) and not (self.prompt and isinstance(self.prompt[0], int))
        return self.prompt if several else [self.prompt]  # type: ignore[return-value, list-item]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart]
    name: Text | None = None

    def for_template(self) -> dict[str, str]:
        content = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        named = {"name": self.name} if self.name else {}
        return {"role": self.role, "content": content, **named}


class ChatRequest(GenerationRequest):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def asked_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def refuse_unsupported(request: GenerationRequest) -> None:
    unknown = {name: value for name, value in (request.model_extra or {}).items() if not _harmless(name, value)}
    for index, message in enumerate(getattr(request, "messages", [])):
        extra = message.model_extra or {}
        unknown |= {f"messages[{index}].{name}": value for name, value in extra.items() if not _harmless(name, value)}
    if request.stream_options is not None and not request.stream:
        unknown["stream_options"] = request.stream_options.model_dump()
    if unknown:
        told = [
            f"`{name}`={json.dumps(value)[:80]} is not supported by this server. "
            f"Fix: {REMEDIES.get(name, 'leave it out')}."
            for name, value in unknown.items()
        ]
        raise ApiError(400, " ".join(told), next(iter(unknown)))


def _harmless(name: str, value: Any) -> bool:
    # Python's 0 == False, but `logprobs: 0` asks for something that `logprobs: false` does not.
    same = any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL.get(name, ()))
    return name in HARMLESS or value in (None, [], {}) or same


@dataclass(frozen=True)
class Shape:
    """How one of the two endpoints writes its answers."""

    prefix: str
    whole: str
    chunk: str
    choice: Callable[[str], Mapping[str, Any]]
    delta: Callable[[str], Mapping[str, Any]]
    opening: Mapping[str, Any] | None

    def new_id(self) -> str:
        return f"{self.prefix}-{uuid.uuid4().hex}"


CHAT = Shape(
    prefix="chatcmpl",
    whole="chat.completion",
    chunk="chat.completion.chunk",
    choice=lambda text: {"message": {"role": "assistant", "content": text}},
    delta=lambda text: {"delta": {"content": text} if text else {}},
    opening={"delta": {"role": "assistant", "content": ""}},
)
TEXT = Shape(
    prefix="cmpl",
    whole="text_completion",
    chunk="text_completion",
    choice=lambda text: {"text": text},
    delta=lambda text: {"text": text},
    opening=None,
)


def choice(index: int, content: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}


def usage(prompts: Sequence[Sequence[int]], finished: Sequence[Finished]) -> dict[str, int]:
    asked = sum(len(prompt) for prompt in prompts)
    answered = sum(end.completion_tokens for end in finished)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
