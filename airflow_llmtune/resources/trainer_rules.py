"""Flags of our own trainer that contradict each other, told before a pod starts: the rules are those of its schema.

What the rules' language cannot say is left to the trainer: whether two splits are one, how long two lists are, and what
is inside of `fsdp_config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.trainer_flags import Run, cast, find, schema

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["Given", "check_together"]

JSON = dict[str, Any]


class Given(NamedTuple):
    """A flag as the author gave it."""

    argument: str
    texts: tuple[str, ...]  # of a parameter that is searched, what Katib may choose; of a range its ends


def check_together(given: Mapping[str, Given], run: Run, problems: Problems) -> None:
    """Note what breaks a rule, for one choice of the values at least; not of a flag that has a mistake of its own."""
    wrong = {word for error in problems.errors for word in re.split(r"[.\[]", error.argument)}
    sound = {name: each for name, each in given.items() if wrong.isdisjoint((name, each.argument))}
    for rule in schema()["rules"]:
        others = _others(rule)
        if wrong.isdisjoint(others) and wrong.isdisjoint(_argument_of(name, given, run) for name in others):
            _check(rule, sound, run, problems)


def _others(rule: JSON) -> set[str]:
    return {*rule.get("beside", ()), *rule.get("without", ())}


def _argument_of(name: str, given: Mapping[str, Given], run: Run) -> str:
    return given[name].argument if name in given else run.arguments.get(name, f"trainer_args.{name}")


def _check(rule: JSON, given: Mapping[str, Given], run: Run, problems: Problems) -> None:
    def filled(text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda name: f"`{_argument_of(name[1], given, run)}`", text)

    for flag in rule["flags"]:
        if (text := _breaking(flag, rule, given, run)) is not None:
            problems.add(given[flag].argument, text, filled(rule["why"]), filled(rule["fix"]))


def _breaking(flag: str, rule: JSON, given: Mapping[str, Given], run: Run) -> str | None:
    """The first of the flag's texts with which it is a mistake."""
    known = sorted({flag, *_others(rule)} & given.keys())
    for texts in product(*(given[name].texts for name in known)):
        chosen = dict(zip(known, texts, strict=True))
        values = {name: cast(find(name, run.task), text) for name, text in chosen.items() if text}
        if _is_broken(flag, rule, values, run):
            return chosen[flag]
    return None


# --- the trainer's way of judging ---------------------------------------------------------------------------


def _is_broken(flag: str, rule: JSON, values: JSON, run: Run) -> bool:
    def holds(name: str, words: list[Any]) -> bool:
        if not words:
            return _is_given(values.get(name))
        value = values[name] if name in values else find(name, run.task)["default"]
        return any(part in words for part in (value if isinstance(value, list | dict) else [value]))

    return (
        _is_given(values.get(flag))
        and all(holds(*each) for each in rule.get("beside", {}).items())
        and not any(holds(*each) for each in rule.get("without", {}).items())
    )


def _is_given(value: Any) -> bool:
    return value is not None and value is not False
