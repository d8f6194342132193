"""The search space: plain JSON in, Katib parameters out, and Katib's texts back to typed values."""

# ruff: noqa: A002  (`min` and `max` are Katib's words, and what a DAG author types)
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from airflow_llmtune.exceptions import OutcomeError
from airflow_llmtune.resources.meta import finite, is_plain, text_of, whole
from airflow_llmtune.resources.problems import Problems, did_you_mean

__all__ = [
    "Distribution",
    "Parameter",
    "SearchSpace",
    "categorical",
    "decode_number",
    "discrete",
    "double",
    "integer",
    "log_uniform",
]

Distribution = Literal["uniform", "logUniform", "normal", "logNormal"]
ParameterType = Literal["double", "int", "categorical", "discrete"]
Scalar = int | float | str | bool
Number = int | float | str  # Jinja renders numbers to text

_TYPES: tuple[str, ...] = get_args(ParameterType)
_DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)
# Beyond these a number with a fraction no longer tells one point from the next.
_WIDEST, _MOST_STEPS = 1e300, 2**53
_RANGE_KEYS = ("type", "min", "max", "step", "distribution")
_LIST_KEYS = ("type", "values")

# A parameter's name is also a command-line flag and part of an environment variable's name.
_NAME = r"[A-Za-z][A-Za-z0-9_]*"
# Katib pastes values into the template's JSON as they are; Kubernetes then expands `$`.
_UNCARRIABLE = r'["\\$\x00-\x1f\x7f]'


# --- what a DAG author writes -------------------------------------------------------------------------------


def double(
    min: Number, max: Number, step: Number | None = None, distribution: Distribution | None = None
) -> dict[str, Any]:
    """A real number between min and max."""
    return _given(type="double", min=min, max=max, step=step, distribution=distribution)


def log_uniform(min: Number, max: Number) -> dict[str, Any]:
    """A real number whose order of magnitude matters, such as a learning rate."""
    return double(min, max, distribution="logUniform")


def integer(
    min: Number, max: Number, step: Number | None = None, distribution: Distribution | None = None
) -> dict[str, Any]:
    """A whole number from min to max, both included."""
    return _given(type="int", min=min, max=max, step=step, distribution=distribution)


def categorical(values: list[Scalar]) -> dict[str, Any]:
    """One of the values, which have no order; each keeps its own type."""
    return {"type": "categorical", "values": values}


def discrete(values: list[Number]) -> dict[str, Any]:
    """One of the numbers."""
    return {"type": "discrete", "values": values}


def _given(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


# --- the checked form ---------------------------------------------------------------------------------------


class Parameter(NamedTuple):
    """One checked parameter: a range (``min``, ``max``) or a list (``values``), as its type says."""

    name: str
    type: str
    min: int | float = 0
    max: int | float = 0
    step: int | float | None = None
    distribution: str | None = None
    values: tuple[Scalar, ...] = ()

    @property
    def is_range(self) -> bool:
        return self.type in ("double", "int")

    def to_manifest(self) -> dict[str, Any]:
        space: dict[str, Any] = {"list": [text_of(value) for value in self.values]}
        if self.is_range:
            space = {"min": text_of(self.min), "max": text_of(self.max)}
            if self.step is not None:
                space["step"] = text_of(self.step)
            if self.distribution is not None:
                space["distribution"] = self.distribution
        return {"name": self.name, "parameterType": self.type, "feasibleSpace": space}

    def decode(self, text: str) -> Scalar:
        if self.type == "categorical":
            for value in self.values:
                if text_of(value) == text:
                    return value
            listed = ", ".join(text_of(value) for value in self.values)
            raise OutcomeError(f"Katib assigned `{self.name}`={text!r}, which is none of the listed values: {listed}")
        return decode_number(self.name, self.type, text)

    def size(self) -> int | None:
        """How many values a grid has, or None when they cannot be counted."""
        if not self.is_range:
            return len(self.values)
        step = self.step if self.step is not None or self.type == "double" else 1
        if step is None:
            return None
        # 0.1 + 0.2 > 0.3: a point that misses the end by rounding is on the grid.
        return math.floor((self.max - self.min) / step + 1e-9) + 1


def decode_number(name: str, type_: str, text: str) -> int | float:
    """The number behind Katib's text: a float for double, an int for int and for a whole discrete value."""
    as_int, as_float = whole(text), finite(text)
    number = as_float if type_ == "double" or (type_ == "discrete" and as_int is None) else as_int
    if number is None:
        raise OutcomeError(f"Katib assigned `{name}`={text!r}, which is no value of type {type_}")
    return number


class SearchSpace(NamedTuple):
    parameters: tuple[Parameter, ...]

    @classmethod
    def from_json(cls, mapping: Any, problems: Problems, argument: str = "parameters") -> SearchSpace:
        """Keep the good parameters; the others are in ``problems``."""
        if not isinstance(mapping, Mapping) or not mapping:
            problems.add(
                argument,
                mapping,
                "is not a mapping with at least one parameter",
                "give a dict such as {'learning_rate': log_uniform(1e-5, 1e-3)}",
            )
            return cls(())
        read = (_read_parameter(name, given, problems, argument) for name, given in mapping.items())
        return cls(tuple(parameter for parameter in read if parameter is not None))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def to_manifest(self) -> list[dict[str, Any]]:
        return [parameter.to_manifest() for parameter in self.parameters]

    def decode(self, assignments: Mapping[str, str]) -> dict[str, Scalar]:
        """Typed values; a name that is not of this space keeps its text."""
        known = {parameter.name: parameter for parameter in self.parameters}
        return {name: known[name].decode(text) if name in known else text for name, text in assignments.items()}

    def size(self) -> int | None:
        """How many combinations a grid has, or None when a double without a step makes it boundless."""
        sizes = [parameter.size() for parameter in self.parameters]
        counted = [size for size in sizes if size is not None]
        return math.prod(counted) if len(counted) == len(sizes) else None


# --- the rules ----------------------------------------------------------------------------------------------


def _read_parameter(name: Any, given: Any, problems: Problems, argument: str) -> Parameter | None:
    where = f"{argument}.{name}"
    before = len(problems.errors)
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        problems.add(where, name, "is not a valid name", "use letters, digits and `_`, starting with a letter")
    if not isinstance(given, Mapping):
        problems.add(where, given, "is not a parameter", "give a dict such as {'type': 'int', 'min': 1, 'max': 8}")
        return None
    type_ = problems.choice(f"{where}.type", given.get("type"), _TYPES)
    if type_ is None:
        return None
    is_range = type_ in ("double", "int")
    _check_keys(where, given, _RANGE_KEYS if is_range else _LIST_KEYS, problems)
    parameter = (_read_range if is_range else _read_list)(where, name, type_, given, problems)
    return parameter if len(problems.errors) == before else None


def _check_keys(where: str, given: Mapping[str, Any], known: tuple[str, ...], problems: Problems) -> None:
    for key in given:
        if key not in known:
            rule = f"is not known for type {given['type']}"
            problems.add(f"{where}.{key}", given[key], rule, did_you_mean(key, known))


def _read_range(where: str, name: str, type_: str, given: Mapping[str, Any], problems: Problems) -> Parameter | None:
    low = _read_bound(f"{where}.min", type_, given.get("min"), problems)
    high = _read_bound(f"{where}.max", type_, given.get("max"), problems)
    step = None if given.get("step") is None else _read_bound(f"{where}.step", type_, given["step"], problems)
    distribution = given.get("distribution")
    if distribution is not None:
        distribution = problems.choice(f"{where}.distribution", distribution, _DISTRIBUTIONS)
    if low is not None and high is not None and low >= high:
        problems.add(f"{where}.min", given["min"], f"is not less than max={given['max']}", "give min < max")
    elif low is not None and high is not None and high - low > _WIDEST:
        problems.add(f"{where}.max", given["max"], f"is more than {_WIDEST:g} above min", "give a smaller range")
    if distribution in ("logUniform", "logNormal") and low is not None and low <= 0:
        fix = "give min > 0, or leave out the distribution"
        problems.add(f"{where}.min", given["min"], f"must be above 0 for the distribution {distribution}", fix)
    if step is not None:
        _check_step(f"{where}.step", given["step"], step, low, high, problems)
    return None if low is None or high is None else Parameter(name, type_, low, high, step, distribution)


def _read_bound(where: str, type_: str, value: Any, problems: Problems) -> int | float | None:
    if value is None:
        problems.add(where, value, f"is missing; type {type_} needs it", "give a number")
        return None
    return problems.integer(where, value) if type_ == "int" else problems.number(where, value)


def _check_step(where: str, given: Any, step: float, low: float | None, high: float | None, problems: Problems) -> None:
    if step <= 0:
        problems.add(where, given, "is not above 0", "give a step > 0, or leave it out")
    elif low is not None and high is not None and low < high and step > high - low:
        problems.add(where, given, f"is larger than the range from {low} to {high}", "give a smaller step")
    elif low is not None and high is not None and high - low > step * _MOST_STEPS:
        problems.add(where, given, f"is too small for the range from {low} to {high}", "give a larger step")


def _read_list(where: str, name: str, type_: str, given: Mapping[str, Any], problems: Problems) -> Parameter:
    where = f"{where}.values"
    listed = given.get("values")
    if not isinstance(listed, list | tuple) or not listed:
        problems.add(where, listed, "is not a list with at least one value", "give a list such as [8, 16, 32]")
        return Parameter(name, type_)
    values: list[Scalar] = []
    for index, value in enumerate(listed):
        read = _read_value(f"{where}[{index}]", type_, value, problems)
        if read is None:
            continue
        if text_of(read) in map(text_of, values):
            problems.add(f"{where}[{index}]", value, "is listed twice", "leave one of the two out")
        values.append(read)
    return Parameter(name, type_, values=tuple(values))


def _read_value(where: str, type_: str, value: Any, problems: Problems) -> Scalar | None:
    if type_ == "discrete":
        number = problems.number(where, value)
        as_int = whole(value)
        return number if as_int is None else as_int
    if not is_plain(value):
        problems.add(where, value, "is not a text, a boolean or a finite number", "give a plain value")
        return None
    if isinstance(value, str) and (bad := re.search(_UNCARRIABLE, value)):
        rule = f"contains {bad.group()!r}, which Katib's text substitution cannot carry into the trial"
        problems.add(where, value, rule, 'leave out `"`, `\\`, `$` and control characters')
        return None
    return value
