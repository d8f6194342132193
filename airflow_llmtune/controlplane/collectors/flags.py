"""The command line of the collectors' images, read as Go reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_llmtune.controlplane.collectors.stop_rules import StopRule, parse_rule

# The services that the two -s flags name are in this process; nothing is dialled.
_KNOWN = {"t", "m", "o-type", "s-db", "s-earlystop", "path", "f", "format", "w", "stop-rule", "p", "timeout"}
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}


class FlagError(Exception):
    """A flag that the collector does not know, or whose value it cannot read."""


@dataclass(frozen=True)
class Flags:
    trial: str
    metrics: tuple[str, ...]
    """The objective is the first."""
    objective_type: str
    path: Path
    filters: tuple[str, ...]
    format: str
    wait_all: bool
    """Whether to wait for all containers of the pod, or only until the training has said that it is complete."""
    stop_rules: tuple[StopRule, ...]


def parse_flags(words: Sequence[str]) -> Flags:
    """Lists are joined by semicolons, so a filter or a name that has one in it falls apart, as upstream."""
    found = _values(words)
    missing = [f"-{name}" for name in ("t", "m", "path") if not found[name]]
    if missing:
        raise FlagError(f"required: {', '.join(missing)}")
    file_format = _last(found, "format", "TEXT")
    if file_format not in {"TEXT", "JSON"}:
        raise FlagError("format must be set TEXT or JSON")
    filters = _last(found, "f")
    return Flags(
        trial=_last(found, "t"),
        metrics=tuple(_last(found, "m").split(";")),
        objective_type=_last(found, "o-type"),
        path=Path(_last(found, "path")),
        filters=tuple(filters.split(";")) if filters else (),
        format=file_format,
        wait_all=_last(found, "w", "true") in _TRUE,
        stop_rules=tuple(_rule(text) for text in found["stop-rule"]),
    )


def _values(words: Sequence[str]) -> defaultdict[str, list[str]]:
    """``-name value`` or ``-name=value``; a value may begin with a dash."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or name not in _KNOWN:
            raise FlagError(f"flag provided but not defined: {word}")
        if not equals:
            following = next(rest, None)
            if following is None:
                raise FlagError(f"flag needs an argument: -{name}")
            value = following
        found[name].append(value)
    return found


def _last(found: defaultdict[str, list[str]], name: str, default: str = "") -> str:
    return found[name][-1] if found[name] else default


def _rule(text: str) -> StopRule:
    try:
        return parse_rule(text)
    except ValueError as error:
        raise FlagError(f"invalid value for flag -stop-rule: {error}") from error
