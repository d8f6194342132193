"""Kubernetes' resource quantities (``500m``, ``1Gi``, ``1e3``): reading and writing them. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d{1,2}|[numkMGTPE]|[KMGTPE]i|)")
_BINARY = {unit: Fraction(1024) ** power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], 1)}
_DECIMAL = {
    unit: Fraction(1000) ** power for power, unit in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3)
}


class QuantityError(ValueError):
    """No quantity; the text is the one that Kubernetes' decoder has for it."""

    def __init__(self) -> None:
        super().__init__("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")


def parse(value: str | int | float) -> Fraction:
    match = _QUANTITY.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise QuantityError
    number, suffix = match[1], match[2]
    if suffix[:1] in {"e", "E"} and len(suffix) > 1:
        return Fraction(Decimal(f"{number}{suffix}"))
    return Fraction(number) * (_BINARY.get(suffix) or _DECIMAL[suffix])


def whole(value: str | int | float) -> int:
    """Rounded up, as Kubernetes counts bytes and devices."""
    return math.ceil(parse(value))
