"""Texts as Go reads and prints them: ``%v``, JSON, numbers. Katib's messages and comparisons depend on it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

# Within JSON text these only occur inside strings, so they may be replaced afterwards.
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_FLOAT = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity)|nan", re.IGNORECASE)


def go_json(value: Any, *, sort_keys: bool = False) -> str:
    """``json.Marshal``: without spaces, and safe inside HTML."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys)
    for character, escaped in _HTML.items():
        text = text.replace(character, escaped)
    return text


def go_value(value: Any) -> str:
    """``%v`` of what JSON can hold."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"map[{' '.join(f'{name}:{go_value(one)}' for name, one in sorted(value.items()))}]"
        case list():
            return f"[{' '.join(map(go_value, value))}]"
        case _:
            return str(value)


def go_float(text: str) -> float | None:
    """``strconv.ParseFloat`` of a decimal number: None where that is an error, also when it is out of range."""
    if _FLOAT.fullmatch(text) is None:
        return None
    number = float(text)
    overflown = number in {float("inf"), float("-inf")} and "inf" not in text.lower()
    return None if overflown else number
