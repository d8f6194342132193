"""Katib's ``field.ErrorList``: all mistakes of an object in one text."""

from __future__ import annotations

import json
from typing import Any


class FieldErrors:
    def __init__(self) -> None:
        self._errors: list[str] = []

    def __len__(self) -> int:
        return len(self._errors)

    def __str__(self) -> str:
        """One error as it is, several as ``[e1, e2]``."""
        return self._errors[0] if len(self._errors) == 1 else f"[{', '.join(self._errors)}]"

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self._errors.append(f"{path}: Invalid value: {json.dumps(value, ensure_ascii=False)}: {detail}")

    def required(self, path: str, detail: str) -> None:
        self._errors.append(f"{path}: Required value: {detail}")

    def forbidden(self, path: str, detail: str) -> None:
        self._errors.append(f"{path}: Forbidden: {detail}")
