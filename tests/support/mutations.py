"""Changes that a hand, a template or an upstream task makes in good data: random ones, at random places."""

from __future__ import annotations

import copy
import datetime
import decimal
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from airflow_llmtune.resources.meta import is_plain

Path = tuple[Any, ...]


ODD_JSON: tuple[Any, ...] = (
    *("", "ééé", "a b", "0", "nan", "1e999", "${trialParameters.lr_value}", "${trialSpec.Name}", "x" * 300),
    *(None, True, False, 0, -1, 7, 2**63, 0.5, [], {}, [None], ["a"], [{}], {"a": 1}),
)
ODD_VALUES: tuple[Any, ...] = (
    *ODD_JSON,
    *(float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 5e-324, 10**400, -(10**4000), "1e400", "-inf", "1_000"),
    *("None", "null", "True", " ", "\n", "a\nb", "a\0b", "\x1b[31mred", "\ud800", "日本語", "😀", "x" * 5000, "٣"),
    *("{{ ti.xcom_pull('tune') }}", "{%", "$(HOME)", "`id`", "'\"", "../..", "a/b", "-", ".", "1.", "0x10", "{", "[]"),
    *((), ("a",), [[]], [[], {}], [1, "a", None], [[[[["a"]]]]], [{"name": "a"}, {"name": "a"}], list(range(300))),
    *({"": ""}, {"a": {"b": {"c": []}}}, {1: 2}, {None: None}, {"a b": "c"}, {"name": "a"}, {"name": None}),
    *({"secretKeyRef": {}}, {"type": "int"}, {"spec": []}),
    *(b"bytes", {1}, object, 1j, datetime.date(2026, 11, 22), datetime.timedelta(1), decimal.Decimal("1.5")),
)
# In the middle of a text they are harmless, more YAML than was meant, or none at all.
_INSERTED = (
    *("", "", "", " ", "\n", "\n\n", "\t", ":", ": ", "- ", "}", '"', "'"),
    *("\0", "#", "&a ", "*a", "!!set ", "---\n", "[" * 500),
)
_SUFFIXES = ("\0", "\ud800", "\n", " ", "é", "$(A)", "'", "${trialParameters.x}", "{", "/", "," * 90)
# No mutation is that deep, and what YAML makes of `&a [*a]` has no end.
_DEEPEST = 16


def places_in(value: Any, path: Path = ()) -> Iterator[Path]:
    """The way to each key and item below."""
    if len(path) >= _DEEPEST:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places_in(inner, (*path, key))


def other_type(value: Any) -> Any:
    match value:
        case str():
            return [value]
        case dict():
            return list(value.values())
        case list():
            return {str(index): one for index, one in enumerate(value)}
        case _:
            return str(value)


def holder_of(value: Any, path: Path) -> Any:
    for step in path[:-1]:
        value = value[step]
    return value


def _replace_by_odd(draw: st.DrawFn, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))


def _spoil(draw: st.DrawFn, holder: Any, key: Any) -> None:
    holder[key] = f"{holder[key] if is_plain(holder[key]) else ''}{draw(st.sampled_from(_SUFFIXES))}"


def _remove(draw: st.DrawFn, holder: Any, key: Any) -> None:
    del holder[key]


def _change_type(draw: st.DrawFn, holder: Any, key: Any) -> None:
    holder[key] = other_type(holder[key])


def _duplicate(draw: st.DrawFn, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}x"] = copy.deepcopy(holder[key])


def _rename(draw: st.DrawFn, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[draw(st.sampled_from(("", "a b", "nAme", "日本語", "x" * 300, "a\nb", "\ud800", 7, None)))] = holder.pop(
            key
        )


_OF_VALUES: tuple[Callable[[st.DrawFn, Any, Any], None], ...] = (_replace_by_odd, _replace_by_odd, _spoil, _change_type)
_OF_KEYS: tuple[Callable[[st.DrawFn, Any, Any], None], ...] = (_remove, _duplicate, _rename)


def spoil_text(draw: st.DrawFn, text: str) -> str:
    """Put something in between, or cut the rest off."""
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(st.sampled_from(_INSERTED)) + draw(st.sampled_from((text[place:], text[place:], "")))


def mutate(draw: st.DrawFn, arguments: dict[str, Any]) -> None:
    """Change one place, in place; the arguments keep their names."""
    path = draw(st.sampled_from(list(places_in(arguments))))
    changes = _OF_VALUES if len(path) == 1 else (*_OF_VALUES, *_OF_KEYS)
    draw(st.sampled_from(changes))(draw, holder_of(arguments, path), path[-1])
