"""Katib's ``field.ErrorList``: all mistakes of an object in one text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.go_text import go_json


class FieldErrors:
    def __init__(self) -> None:
        self._errors: list[str] = []

    def __len__(self) -> int:
        return len(self._errors)

    def __str__(self) -> str:
        """One error as it is, several as ``[e1, e2]``; the same text comes once."""
        distinct = list(dict.fromkeys(self._errors))
        return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"

    def invalid(self, path: str, value: Any, detail: str) -> None:
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else go_json(value)
        self._errors.append(f"{path}: Invalid value: {shown}: {detail}")

    def required(self, path: str, detail: str) -> None:
        self._errors.append(f"{path}: Required value: {detail}")

    def forbidden(self, path: str, detail: str) -> None:
        self._errors.append(f"{path}: Forbidden: {detail}")

    def unsupported(self, path: str, value: str, supported: Sequence[str]) -> None:
        listed = ", ".join(json.dumps(one) for one in supported)
        self._errors.append(f"{path}: Unsupported value: {json.dumps(value)}: supported values: {listed}")
