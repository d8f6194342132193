"""Katib's parameter specs, parsed from their texts, and values as the texts that Katib passes on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from statistics import NormalDist
from typing import Any

Assignments = dict[str, str]
"""One parameter set: name to value, all texts."""

MAX_LISTED_VALUES = 100_000

_MOST = 1e300
"""Of a bound; what is computed from two of them, such as their distance, must be a double, too."""
_MOST_INT = 2**63 - 1
_LARGEST_EXPONENT = math.log(_MOST)


class InvalidSettingsError(Exception):
    """The algorithm cannot work with these settings or this space; the text is what the user reads."""


@dataclass(frozen=True)
class Choice:
    """``categorical`` or ``discrete``: one of these texts."""

    name: str
    options: tuple[str, ...]

    def values(self) -> list[str]:
        return list(self.options)


@dataclass(frozen=True)
class Range:
    """``int`` or ``double`` between two bounds, both included; ``step`` counts from ``low``."""

    name: str
    low: Decimal
    high: Decimal
    step: Decimal | None
    is_int: bool
    distribution: str = "uniform"

    @property
    def is_log(self) -> bool:
        return self.distribution in {"logUniform", "logNormal"}

    @property
    def is_normal(self) -> bool:
        return self.distribution in {"normal", "logNormal"}

    @property
    def last(self) -> Decimal:
        """The largest value on the grid."""
        if self.step is None:
            return self.high
        return self.low + self.step * int((self.high - self.low) / self.step)

    @property
    def normal(self) -> NormalDist:
        """Of the value, or of its logarithm: its mean in the middle, a standard deviation of a sixth of the range."""
        low, high = float(self.low), float(self.high)
        if self.is_log:
            low, high = math.log(low), math.log(high)
        return NormalDist((low + high) / 2, (high - low) / 6 or 1e-12)

    def at_quantile(self, quantile: float) -> float:
        number = self.normal.inv_cdf(quantile)
        return math.exp(min(number, _LARGEST_EXPONENT)) if self.is_log else number

    def quantile(self, number: float) -> float:
        return self.normal.cdf(math.log(max(number, 5e-324)) if self.is_log else number)

    def values(self) -> list[str]:
        """All values on the grid; an int without a step has step 1."""
        step = self.step or (Decimal(1) if self.is_int else None)
        if step is None:
            raise InvalidSettingsError(f"Param: {self.name} step is nil")
        count = int((self.high - self.low) / step) + 1
        if count > MAX_LISTED_VALUES:
            raise InvalidSettingsError(f"Param: {self.name} has {count} values, more than {MAX_LISTED_VALUES}")
        return [self.text(self.low + index * step) for index in range(count)]

    def text(self, number: Decimal | float) -> str:
        """As Python prints it, put on the grid without the noise of binary fractions."""
        exact = number if isinstance(number, Decimal) else Decimal(str(number))
        if self.step is not None:
            exact = self.low + self.step * round((exact - self.low) / self.step)
        elif self.is_int and self.is_normal:
            exact = exact.to_integral_value()
        # A normal distribution may leave the range; any other must not do so by being rounded.
        inside = exact if self.is_normal else min(max(exact, self.low), self.last)
        return str(int(inside)) if self.is_int else str(float(inside))


Parameter = Choice | Range


def parse(parameters: Sequence[Mapping[str, Any]]) -> list[Parameter]:
    """Differs from Katib: a space that cannot be drawn from is refused, not tried again without end."""
    if not parameters:
        raise InvalidSettingsError("there are no parameters to search, and spec.nasConfig is not supported")
    return [_parse_one(parameter) for parameter in parameters]


def _parse_one(parameter: Mapping[str, Any]) -> Parameter:
    name, type_, space = parameter["name"], parameter["parameterType"], parameter.get("feasibleSpace") or {}
    if type_ in {"categorical", "discrete"}:
        options = tuple(space.get("list") or ())
        if not options:
            raise InvalidSettingsError(f"Param: {name} feasibleSpace.list is empty")
        return Choice(name, options)
    is_int = type_ == "int"
    low, high = (_number(name, bound, space.get(bound, ""), is_int) for bound in ("min", "max"))
    step = _number(name, "step", space["step"], is_int) if space.get("step") else None
    distribution = space.get("distribution") or "uniform"
    parsed = Range(name, low, high, step, is_int, distribution)
    _check_range(parsed)
    return parsed


def _number(name: str, bound: str, text: str, is_int: bool) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or (is_int and number != number.to_integral_value()):
        kind = "an integer" if is_int else "a number"
        raise InvalidSettingsError(f"Param: {name} feasibleSpace.{bound} is {text!r}, not {kind}")
    most = _MOST_INT if is_int else _MOST
    if abs(number) > most:
        raise InvalidSettingsError(f"Param: {name} feasibleSpace.{bound} {text} is beyond what can be searched, {most}")
    return number


def _check_range(parameter: Range) -> None:
    name = parameter.name
    if parameter.low > parameter.high:
        raise InvalidSettingsError(
            f"Param: {name} feasibleSpace.min {parameter.low} is greater than feasibleSpace.max {parameter.high}"
        )
    # As doubles: the least of all is 5e-324.
    if parameter.step is not None and float(parameter.step) <= 0:
        raise InvalidSettingsError(f"Param: {name} feasibleSpace.step {parameter.step} is not positive")
    if parameter.is_log and float(parameter.low) <= 0:
        raise InvalidSettingsError(
            f"Param: {name} feasibleSpace.min {parameter.low} must be positive for {parameter.distribution}"
        )


def combinations(space: Sequence[Parameter]) -> int:
    return math.prod(len(parameter.values()) for parameter in space)
