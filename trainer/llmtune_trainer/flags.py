"""What a flag takes, and how its text becomes a value: the language of ``schema.json``, read by trainer and operator.

The operator has a reader of its own, as it imports nothing of the trainer; a test has both judge the same texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from llmtune_trainer.rules import Rule

SCHEMA = Path(__file__).with_name("schema.json")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NOUNS = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a JSON object",
    "json": "a JSON object or list",
}
_PLURALS = {"text": "texts", "integer": "whole numbers", "number": "numbers"}


@dataclass(frozen=True)
class Kind:
    """The values of a flag. Bounds are those of a number, or of each number of a list."""

    type: str = "text"  # or "pattern": no text but those of `also`
    items: str | None = None  # of a list, and the values of an object
    choices: tuple[str | bool, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    none: bool = False
    also: str | None = None  # a pattern of texts that are taken as they are
    also_told: str | None = None  # that pattern in words
    example: str = ""

    def cast(self, text: str) -> Any:
        """Raise ValueError when the text breaks what ``rule`` states."""
        text = text.strip()
        if self.none and text.lower() == "none":
            return None
        if self.also is not None and re.fullmatch(self.also, text):
            return text
        if self.type == "pattern":
            raise ValueError(text)
        if self.type == "list":
            return [self._cast_one(str(self.items), item.strip()) for item in text.split(",")]
        value = self._cast_one(self.type, text)
        if self.type == "object" and self.items:
            return {name: self._cast_one(self.items, json.dumps(item)) for name, item in value.items()}
        return value

    def rule(self) -> str:
        others = [self.also_told or "", "none" if self.none else ""]
        return "must be " + ", or ".join(filter(None, [self._wanted(), *others]))

    def _wanted(self) -> str:
        if self.type == "pattern":
            return ""
        if self.type == "choice":
            return "one of " + ", ".join(map(text_of, self.choices))
        if self.choices:
            return "words separated by commas, each one of " + ", ".join(map(text_of, self.choices))
        items = " ".join(filter(None, [_PLURALS.get(self.items or ""), self._bounds()]))
        if self.type == "list":
            return f"{items} separated by commas"
        noun = _NOUNS[self.type]
        return " of ".join(filter(None, [noun, items])) if self.items else f"{noun} {items}".strip()

    def _bounds(self) -> str:
        limits = {"above": self.above, "of at least": self.minimum, "below": self.below, "of at most": self.maximum}
        return " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None)

    def _cast_one(self, type_: str, text: str) -> Any:
        value = _CASTS[type_](text, self.choices)
        if isinstance(value, int | float) and not isinstance(value, bool) and not self._is_within(value):
            raise ValueError(text)
        return value

    def _is_within(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True)
class Flag:
    """One flag of the trainer. ``classes`` are those of the libraries that have it as ``field``; none: it is ours."""

    name: str
    kind: Kind
    default: Any
    help: str
    tasks: tuple[str, ...]
    classes: tuple[str, ...] = ()
    field: str | None = None
    evaluates: bool = False  # whether the loss of a given model depends on it
    searched: bool = True  # whether trials that differ in it still compare

    def to_json(self) -> dict[str, Any]:
        kind = {name: value for name, value in vars(self.kind).items() if value != getattr(Kind, name)}
        own = {name: value for name, value in vars(self).items() if name != "kind"}
        rest = {name: value for name, value in own.items() if name == "default" or value != getattr(Flag, name, ...)}
        return {**rest, "type": self.kind.type, **kind, "rule": self.kind.rule()}


@dataclass(frozen=True)
class Schema:
    flags: tuple[Flag, ...]
    refused: Mapping[str, str]  # flag -> why, and how to mend it
    rules: tuple[Rule, ...]  # of several flags together

    def find(self, name: str, task: str) -> Flag:
        """Return the flag, for this task if it is one of it: `loss_type` is another one for another task."""
        alike = [flag for flag in self.flags if flag.name == name]
        return next((flag for flag in alike if task in flag.tasks), alike[0])

    @property
    def names(self) -> set[str]:
        return {flag.name for flag in self.flags}


@cache
def load() -> Schema:
    told = json.loads(SCHEMA.read_text(encoding="utf-8"))
    refused = {name: _why(**each) for name, each in told["refused"].items()}
    return Schema(tuple(map(_flag, told["flags"])), refused, tuple(map(Rule.from_json, told["rules"])))


def _why(why: str, use: str | None) -> str:
    return f"{why}. Fix: " + (f"use --{use}." if use else "leave it out.")


def text_of(value: Any) -> str:
    """Write a value as a flag takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(text_of, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _flag(told: Mapping[str, Any]) -> Flag:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    kind = Kind(**{name: values[name] for name in Kind.__dataclass_fields__ if name in values})
    rest = {name: values[name] for name in Flag.__dataclass_fields__ if name in values}
    return Flag(**{**rest, "kind": kind, "default": told["default"]})


def _text(text: str, _: Iterable[Any]) -> str:
    if not text:
        raise ValueError(text)
    return text


def _number(text: str, _: Iterable[Any]) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:  # Python reads "1_000"; Katib does not
        raise ValueError(text)
    return number


def _integer(text: str, _: Iterable[Any]) -> int:
    """A parameter of type double gives whole numbers as `8.0`."""
    number = _number(text, ())
    if not number.is_integer():
        raise ValueError(text)
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number)


def _boolean(text: str, _: Iterable[Any]) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _choice(text: str, choices: Iterable[Any]) -> Any:
    for choice in choices:
        if text == choice or (isinstance(choice, bool) and _BOOLEANS.get(text.lower()) is choice):
            return choice
    raise ValueError(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _json(text: str, _: Iterable[Any]) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError as deep:
        raise ValueError(text) from deep
    if not isinstance(value, dict | list):
        raise ValueError(text)
    return value


def _object(text: str, _: Iterable[Any]) -> Any:
    value = _json(text, ())
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


_CASTS: Mapping[str, Callable[[str, Iterable[Any]], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "choice": _choice,
    "object": _object,
    "json": _json,
}
