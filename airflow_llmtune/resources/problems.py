"""The collector of input errors: all mistakes of an input are told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from airflow_llmtune.exceptions import FieldError, InvalidSpecError
from airflow_llmtune.resources.meta import MAX_LABEL_LENGTH, finite, whole
from airflow_llmtune.resources.redaction import shown

__all__ = ["Problems", "did_you_mean"]

_MAX_DNS_LENGTH = 253
_MAX_ERROR_LENGTH = 300
_DNS_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """The end of a "fix" sentence: the nearest known word, or all of them."""
    import difflib  # here, since a DAG file that is right has no use for it

    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1) if isinstance(word, str) else []
    return f"did you mean `{near[0]}`?" if near else "use one of " + ", ".join(f"`{known}`" for known in words)


def _line(text: str) -> str:
    """One line that a terminal shows as it is."""
    text = text if len(text) <= _MAX_ERROR_LENGTH else text[: _MAX_ERROR_LENGTH - 1] + "…"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class Problems:
    """Collects every mistake of an input, so that its author mends them in one go.

    The readers return the cast value, or None after having noted why there is none.
    Values may come as text: Jinja renders text.
    """

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def add(self, argument: str, value: Any, rule: str, fix: str) -> None:
        # What an author gave may be part of each of them.
        self.errors.append(FieldError(_line(argument), shown(argument, value), _line(rule), _line(fix)))

    def raise_if_any(self, subject: str) -> None:
        if self.errors:
            raise InvalidSpecError(subject, self.errors)

    def number(self, argument: str, value: Any) -> float | None:
        number = finite(value)
        if number is None:
            self.add(argument, value, "is not a finite number", "give a number such as 0.001")
        return number

    def integer(self, argument: str, value: Any, *, at_least: int | None = None) -> int | None:
        number = whole(value)
        if number is None:
            self.add(argument, value, "is not a whole number", "give an integer such as 8")
        elif at_least is not None and number < at_least:
            self.add(argument, value, f"is less than {at_least}", f"give {at_least} or more")
            return None
        return number

    def choice(self, argument: str, value: Any, known: Iterable[str]) -> str | None:
        allowed = list(known)
        if isinstance(value, str) and value in allowed:
            return value
        self.add(argument, value, "is not known", did_you_mean(value, allowed))
        return None

    def boolean(self, argument: str, value: Any) -> bool | None:
        text = str(value).strip().lower()
        if text not in ("true", "false"):
            self.add(argument, value, "is neither true nor false", "give one of these")
            return None
        return text == "true"

    def duration(self, argument: str, value: Any, example: str) -> None:
        """Durations are the one argument that is no text: they have to be there before anything is rendered."""
        if not isinstance(value, timedelta):
            self.add(argument, value, "is no timedelta", f"give {example}, say")
        elif value <= timedelta():
            self.add(argument, value, "is not above zero", f"give {example}, say")

    def name(self, argument: str, value: Any, fix: str) -> str | None:
        """Of something in the cluster."""
        if isinstance(value, str) and len(value) <= _MAX_DNS_LENGTH and re.fullmatch(_DNS_NAME, value):
            return value
        self.add(argument, value, "is not a name: a-z, 0-9, `-` and `.` are taken", fix)
        return None

    def namespace(self, argument: str, value: Any) -> None:
        """An empty one is none."""
        if not value:
            return
        if not isinstance(value, str) or len(value) > MAX_LABEL_LENGTH or not re.fullmatch(_DNS_LABEL, value):
            rule = f"is not a namespace's name: at most {MAX_LABEL_LENGTH} characters a-z, 0-9 and `-`"
            self.add(argument, value, rule, "give such as 'team-nlp', or leave it out")

    def seconds(self, argument: str, value: Any, example: str) -> None:
        """As a duration, it is no text."""
        if isinstance(value, str) or finite(value) is None:
            self.add(argument, value, "is no number of seconds", f"give {example}, say")
        elif value <= 0:
            self.add(argument, value, "is not above zero", f"give {example}, say")

    def mapping(self, argument: str, value: Any) -> dict[str, Any]:
        """An absent mapping is an empty one."""
        if value is None:
            return {}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return dict(value)
        self.add(argument, value, "is not a mapping with text keys", "give a dict such as {'name': 'value'}")
        return {}
