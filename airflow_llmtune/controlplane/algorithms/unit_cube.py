"""A parameter's feasible space as the numbers from 0 to 1, and back, for algorithms that search a cube. Pure.

Equal parts of the unit interval are equally likely under the parameter's distribution: logarithms are spread evenly,
each value of a grid owns an equal part, and normal distributions are cut off at the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from airflow_llmtune.controlplane.algorithms.search_space import Assignments, Choice, Parameter, Range


def assignments_at(space: Sequence[Parameter], point: Sequence[float]) -> Assignments:
    return {one.name: text_at(one, unit) for one, unit in zip(space, point, strict=True)}


def text_at(parameter: Parameter, unit: float) -> str:
    if isinstance(parameter, Choice):
        return parameter.options[_cell(unit, len(parameter.options))]
    return parameter.text(_value_at(parameter, min(max(unit, 0.0), 1.0)))


def unit_of(parameter: Parameter, text: str) -> float:
    """Where in the interval this value lies; the middle of its part when it owns one."""
    if isinstance(parameter, Choice):
        return (parameter.options.index(text) + 0.5) / len(parameter.options)
    return min(max(_unit_of_number(parameter, float(text)), 0.0), 1.0)


def _cell(unit: float, count: int) -> int:
    return min(max(int(unit * count), 0), count - 1)


def _grid(parameter: Range) -> tuple[Decimal, int] | None:
    """The step and how many values there are; none for a logarithm, whose values are not equally far."""
    step = parameter.step or (Decimal(1) if parameter.is_int else None)
    if step is None or parameter.is_log or parameter.is_normal:
        return None
    return step, int((parameter.high - parameter.low) / step) + 1


def _value_at(parameter: Range, unit: float) -> Decimal | float:
    grid = _grid(parameter)
    if grid is None:
        return _number_at(parameter, unit)
    step, count = grid
    return parameter.low + step * _cell(unit, count)


def _number_at(parameter: Range, unit: float) -> float:
    low, high = float(parameter.low), float(parameter.last)
    if parameter.is_normal:
        least, most = parameter.quantile(low), parameter.quantile(high)
        number = parameter.at_quantile(least + unit * (most - least)) if most > least else low
    else:
        start, end = _scale(parameter)
        number = start + unit * (end - start)
        number = math.exp(number) if parameter.is_log else number
    return min(max(number, low), high)


def _unit_of_number(parameter: Range, number: float) -> float:
    grid = _grid(parameter)
    if grid is not None:
        step, count = grid
        return (round((number - float(parameter.low)) / float(step)) + 0.5) / count
    if parameter.is_normal:
        start, end = parameter.quantile(float(parameter.low)), parameter.quantile(float(parameter.last))
        place = parameter.quantile(number)
    else:
        start, end = _scale(parameter)
        place = number
        if parameter.is_log:
            # An int was cut off: its own part of the interval reaches up to the next one.
            place = math.log(max(number, 5e-324) + (0.5 if parameter.is_int else 0.0))
    return (place - start) / (end - start) if end > start else 0.5


def _scale(parameter: Range) -> tuple[float, float]:
    low, high = float(parameter.low), float(parameter.high)
    if not parameter.is_log:
        return low, high
    return math.log(low), math.log(high + 1 if parameter.is_int and parameter.step is None else high)
