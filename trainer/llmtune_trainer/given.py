"""What a command line and an environment give: setting name -> (how it was given, its text), none of it judged."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

__all__ = ["ENV_PREFIX", "Given", "Names", "from_arguments", "from_environment"]

ENV_PREFIX = "LLMTUNE_"
Given = dict[str, tuple[str, str]]


class Names(NamedTuple):
    """Of settings; those that are known and may not be set are never what was meant."""

    settable: Collection[str]
    known: Collection[str]


def from_arguments(arguments: Sequence[str], names: Names, mistakes: list[str]) -> Given:
    given: Given = {}
    rest = list(arguments)
    while rest:
        flag, has_value, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--")
        if not flag.startswith("--"):
            mistakes.append(f"{flag!r} is no flag. Fix: write --NAME VALUE, with quotes around a value with spaces.")
            continue
        if not has_value:
            if not rest or rest[0].startswith("--"):
                mistakes.append(f"`{flag}` has no value. Fix: write --{name} VALUE.")
                continue
            value = rest.pop(0)
        if name not in names.known:
            mistakes.append(f"`{flag}` is unknown. Fix: {_did_you_mean(name, names.settable)}.")
        elif name in given:
            mistakes.append(f"`{flag}` is given twice. Fix: leave one out.")
        else:
            given[name] = (flag, value)
    return given


def from_environment(environ: Mapping[str, str], names: Names, mistakes: list[str]) -> Given:
    """Empty variables count as not set. Other tools use the prefix too, so only near misses are mistakes."""
    given: Given = {}
    for variable, value in environ.items():
        name = variable.removeprefix(ENV_PREFIX).lower()
        if not variable.startswith(ENV_PREFIX) or not value:
            continue
        if name in names.known:
            given[name] = (variable, value)
        elif near := difflib.get_close_matches(name, names.settable, n=1, cutoff=0.85):
            mistakes.append(f"`{variable}` is unknown. Fix: did you mean {ENV_PREFIX}{near[0].upper()}?")
    return given


def _did_you_mean(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"did you mean --{near[0]}?" if near else "--help lists all settings"
