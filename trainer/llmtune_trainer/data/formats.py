"""The formats of rows, by task: how one is recognised, when a row is malformed, and the shape that encoders get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from llmtune_trainer.data.encoding import Row
from llmtune_trainer.errors import BadInputError

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "function_call": "assistant"}

CLASSIFIED_TEXTS: tuple[tuple[str, ...], ...] = (
    ("text", "text_pair"),
    ("text",),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("sentence",),
)


class MalformedError(ValueError):
    """Says what is wrong with a row, as the rest of a sentence that begins with where the row stands."""


class Format(NamedTuple):
    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Row]  # raises MalformedError

    def fits(self, row: Row) -> bool:
        return all(column in row for column in self.columns)


def format_of(rows: Iterable[Row], task: str, dataset_name: str) -> Format:
    """Return the format of the first row that is of a known one; where no row has fields, any will tell so."""
    first: Row | None = None
    for row in rows:
        for known in FORMATS[task]:
            if known.fits(row):
                return known
        first = row if first is None else first
    if first is None:
        return FORMATS[task][-1]
    names = ", ".join(known.name for known in FORMATS[task])
    raise BadInputError(
        f"The rows of {dataset_name} have the fields {', '.join(map(str, first))}, which is none of the "
        f"known formats of --task {task}. Fix: name the fields as one of these has them: {names}."
    )


# --- sft ----------------------------------------------------------------------------------------------------


def _read_text(row: Row) -> Row:
    return {"text": _text(row, "text")}


def _read_pair(row: Row) -> Row:
    prompt, completion = _as_messages(row.get("prompt")), _as_messages(row.get("completion"))
    if prompt is None or completion is None:
        return {"prompt": _text(row, "prompt"), "completion": _text(row, "completion")}
    return _conversation([*prompt, *completion], row, first=len(prompt))


def _as_messages(value: Any) -> list[Row] | None:
    """A text may begin as a list does, and be a text; a list that is no text is messages, right or wrong."""
    found = _listed(value)
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        return None
    return found if isinstance(value, list) or (found and all("role" in message for message in found)) else None


def _read_alpaca(row: Row) -> Row:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    given = row.get("input")
    if given is not None and not isinstance(given, str):
        raise MalformedError(f"has an `input` that is no text but {type(given).__name__}")
    prompt = f"{instruction}\n\n{given}" if given and given.strip() else instruction
    return {"prompt": prompt, "completion": output, "gap": "\n\n"}


def _read_messages(row: Row) -> Row:
    # An answer that nothing came before is no answer.
    return _conversation(_listed(row.get("messages")), row, first=1)


def _read_sharegpt(row: Row) -> Row:
    turns = _listed(row.get("conversations"))
    if isinstance(turns, list):
        turns = [_from_sharegpt(turn) if isinstance(turn, dict) else turn for turn in turns]
    return _conversation(turns, row, first=1)


def _from_sharegpt(turn: Row) -> Row:
    if "from" not in turn:
        return turn
    role = turn["from"]
    return {"role": SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role, "content": turn.get("value")}


def _conversation(messages: Any, row: Row, first: int) -> Row:
    if not isinstance(messages, list) or not messages:
        raise MalformedError("has no list of `messages`")
    messages = [_message(message) for message in messages]
    if all(message["role"] != "assistant" for message in messages[first:]):
        raise MalformedError("has no answer of the role `assistant` to learn")
    tools = _listed(row.get("tools"))
    return {"messages": messages, "first": first} | ({"tools": tools} if tools else {})


def _message(message: Any) -> Row:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise MalformedError("has a message without `role`")
    # Arrow gives every message the fields of all others, as null.
    given = {name: value for name, value in message.items() if value is not None}
    content = given.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        given["content"] = "".join(str(part.get("text") or "") for part in content)
    if not given.get("tool_calls"):
        given["content"] = _text(given, "content")
    return given


def _read_tokens(row: Row) -> Row:
    tokens = _numbers(row, "input_ids")
    if not tokens:
        raise MalformedError("has an empty `input_ids`")
    if min(tokens) < 0:
        raise MalformedError(f"has the token {min(tokens)} in `input_ids`")
    kept = range(len(tokens))
    if row.get("attention_mask") is not None:
        mask = _as_long_as(tokens, row, "attention_mask")
        kept = [index for index in kept if mask[index]]  # type: ignore[assignment]
    found = {"input_ids": [tokens[index] for index in kept]}
    # Labels are given for good; a mask can be overruled by --completion_only_loss false.
    for name in ("labels", "completion_mask"):
        if row.get(name) is not None:
            given = _as_long_as(tokens, row, name)
            return found | {name: [given[index] for index in kept]}
    return found


def _as_long_as(tokens: list[int], row: Row, column: str) -> list[int]:
    given = _numbers(row, column)
    if len(given) != len(tokens):
        raise MalformedError(f"has {len(given)} `{column}` for {len(tokens)} `input_ids`")
    return given


def _numbers(row: Row, column: str) -> list[int]:
    given = _listed(row.get(column))
    if not isinstance(given, list) or not all(isinstance(number, int) for number in given):
        raise MalformedError(f"has no list of whole numbers as `{column}`")
    return given


# --- classification -----------------------------------------------------------------------------------------


def _read_classified(texts: tuple[str, ...], label: str) -> Callable[[Row], Row]:
    def read(row: Row) -> Row:
        named = zip(("text", "text_pair"), texts, strict=False)
        return {name: _text(row, column) for name, column in named} | {"label": _label(row.get(label), label)}

    return read


def _label(value: Any, column: str) -> str | list[str]:
    if isinstance(value, list):
        return [str(_label(one, column)) for one in value]
    if value is None:
        raise MalformedError(f"has no `{column}`")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str):
        raise MalformedError(f"has a `{column}` that is no class but {_shortened(value)}")
    if not str(value).strip():
        raise MalformedError(f"has an empty `{column}`")
    return str(value)


# --- dpo ----------------------------------------------------------------------------------------------------


def _read_preference(row: Row) -> Row:
    names = ["prompt"] if row.get("prompt") is not None else []
    found = {name: _text_or_messages(row, name) for name in [*names, "chosen", "rejected"]}
    if found["chosen"] == found["rejected"]:
        raise MalformedError("has the same text as `chosen` and as `rejected`")
    if type(found["chosen"]) is not type(found["rejected"]):
        raise MalformedError("has a text and a list of messages as `chosen` and `rejected`")
    if not names and isinstance(found["chosen"], str):
        raise MalformedError("has no `prompt`")
    return found


def _text_or_messages(row: Row, column: str) -> str | list[Row]:
    messages = _as_messages(row.get(column))
    if messages:
        return [_message(message) for message in messages]
    return _text(row, column)


# --- values -------------------------------------------------------------------------------------------------


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        raise MalformedError(f"has no `{column}`")
    if not isinstance(value, str):
        raise MalformedError(f"has a `{column}` that is no text but {type(value).__name__}")
    if not value.strip():
        raise MalformedError(f"has an empty `{column}`")
    return value


def _listed(value: Any) -> Any:
    """Return the list of a csv field that holds one as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _shortened(value: Any) -> str:
    return shortened(value, 40)


def shortened(value: Any, length: int = 160) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= length else text[:length] + "…"


FORMATS: dict[str, tuple[Format, ...]] = {
    "sft": (
        Format("input_ids", ("input_ids",), _read_tokens),
        Format("messages", ("messages",), _read_messages),
        Format("conversations", ("conversations",), _read_sharegpt),
        Format("prompt+completion", ("prompt", "completion"), _read_pair),
        Format("instruction+output", ("instruction", "output"), _read_alpaca),
        Format("text", ("text",), _read_text),
    ),
    "classification": tuple(
        Format("+".join((*texts, label)), (*texts, label), _read_classified(texts, label))
        for texts in CLASSIFIED_TEXTS
        for label in ("label", "labels")
    ),
    "dpo": (
        Format("prompt+chosen+rejected", ("prompt", "chosen", "rejected"), _read_preference),
        Format("chosen+rejected", ("chosen", "rejected"), _read_preference),
    ),
}
