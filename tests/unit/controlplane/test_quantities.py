"""Kubernetes' quantities."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from airflow_llmtune.controlplane.quantities import QuantityError, parse, whole


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        (2, 2),
        (0.5, Fraction(1, 2)),
        ("500m", Fraction(1, 2)),
        ("1.5Gi", 3 * 2**29),
        ("64Mi", 2**26),
        ("2k", 2000),
        ("1e3", 1000),
        ("12E", 12 * 10**18),
        ("1E2", 100),
        ("100n", Fraction(1, 10**7)),
        (".5", Fraction(1, 2)),
        ("+3", 3),
        ("-1", -1),
    ],
)
def test_numbers_with_units_are_read(text: str | float, value: Fraction) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "1 Gi", "1GB", "Gi", "1e999999999", "one", True, None, "1.2.3", "1mi"])
def test_anything_else_is_refused(text: Any) -> None:
    with pytest.raises(QuantityError, match="quantities must match the regular expression"):
        parse(text)


def test_parts_are_rounded_up() -> None:
    assert [whole(text) for text in ("100m", "1", "1500m")] == [1, 1, 2]
