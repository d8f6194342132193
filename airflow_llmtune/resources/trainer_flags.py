"""The flags of our own trainer, checked before a pod starts: names, types and bounds as its schema has them.

``trainer_schema.json`` is a copy of the trainer's ``schema.json``, and what is read here is read there in the same way;
tests hold them together. ``trainer_rules`` has what several flags are together.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow_llmtune.resources.defaults import TRAINER_NAME
from airflow_llmtune.resources.meta import finite, text_of, whole
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow_llmtune.resources.search_space import Parameter

__all__ = [
    "DEFAULT_TASK",
    "PUSH_FLAG",
    "TASK_FLAG",
    "Run",
    "cast",
    "check_flags",
    "check_parameter",
    "evaluation_flags",
    "find",
    "is_of_trainer",
    "is_true",
    "schema",
    "takes_json",
]

JSON = dict[str, Any]
TASK_FLAG = "task"
PUSH_FLAG = "metrics_push"
DEFAULT_TASK = "sft"
# Of whatever registry, tag and digest.
_TRAINER_IMAGE = rf"(.+/)?{TRAINER_NAME}(:[^/@]+)?(@.+)?"
_SCHEMA = Path(__file__).with_name("trainer_schema.json")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NUMBERS = ("integer", "number")
_JSON = ("object", "json")


class Run(NamedTuple):
    """What flags are given to."""

    task: str = DEFAULT_TASK
    evaluates: bool = False
    arguments: Mapping[str, str] = MappingProxyType({})  # flag -> the operator's argument for it


def is_of_trainer(image: Any) -> bool:
    """Whether it is the trainer that the schema is of; of what another one takes nothing is known here."""
    return isinstance(image, str) and re.fullmatch(_TRAINER_IMAGE, image) is not None


def is_true(text: str) -> bool:
    """As the trainer reads it."""
    return _BOOLEANS.get(text.strip().lower(), False)


def find(name: str, task: str) -> JSON:
    """The flag, for this task if it is one of it: `loss_type` is another one for another task."""
    alike: list[JSON] = [flag for flag in schema()["flags"] if flag["name"] == name]
    return next((flag for flag in alike if task in flag["tasks"]), alike[0])


def takes_json(name: str) -> bool:
    return any(flag["name"] == name and flag["type"] in _JSON for flag in schema()["flags"])


def evaluation_flags() -> list[str]:
    """What the loss of a given model depends on."""
    return list(dict.fromkeys(flag["name"] for flag in schema()["flags"] if flag.get("evaluates")))


def check_flags(argument: str, flags: Mapping[str, str], run: Run, problems: Problems) -> None:
    """``flags`` as the texts that the trainer is given."""
    for name, text in flags.items():
        where = f"{argument}.{name}"
        flag = _read_name(where, name, text, run, problems)
        if flag is None:
            continue
        if run.evaluates and not flag.get("evaluates") and name not in schema()["housekeeping"]:
            problems.add(where, text, "has no part in an evaluation", "leave it out")
        elif not _takes(flag, text) and not _is_left_out(flag, text):
            problems.add(where, text, flag["rule"], _fix(flag, text))


def _is_left_out(flag: JSON, text: str) -> bool:
    """An empty text goes by the environment, where the trainer takes it for none."""
    return not text and flag["type"] == "text"


def check_parameter(parameter: Parameter, run: Run, problems: Problems) -> None:
    """Whether the trainer takes whatever Katib may choose."""
    where = f"parameters.{parameter.name}"
    flag = _read_name(where, parameter.name, parameter.name, run, problems)
    if flag is None:
        return
    if not flag.get("searched", True):
        rule = "is not searched: trials that differ in it do not compare, or are the same"
        problems.add(where, parameter.name, rule, f"give it in `trainer_args.{parameter.name}`")
    elif not parameter.is_range:
        for index, value in enumerate(parameter.values):
            if not _takes(flag, text_of(value)):
                problems.add(f"{where}.values[{index}]", value, flag["rule"], _fix(flag, text_of(value)))
    elif flag["type"] not in _NUMBERS:
        problems.add(where, parameter.type, f"is no number: it {flag['rule']}", "use categorical([…])")
    else:
        _check_range(where, flag, parameter, problems)


def _check_range(where: str, flag: JSON, parameter: Parameter, problems: Problems) -> None:
    if (
        flag["type"] == "integer"
        and parameter.type == "double"
        and None in (whole(parameter.min), whole(parameter.step))
    ):
        problems.add(where, parameter.type, f"gives fractions, and the setting {flag['rule']}", "use integer(min, max)")
        return
    for key, number in (("min", parameter.min), ("max", parameter.max)):
        if not _takes(flag, text_of(number)):
            problems.add(f"{where}.{key}", number, flag["rule"], "give another bound")


def _read_name(where: str, name: str, value: Any, run: Run, problems: Problems) -> JSON | None:
    """Return the flag of that name, for the task if it has one for it."""
    if refusal := schema()["refused"].get(name):
        use = refusal["use"]
        fix = f"use `{run.arguments.get(use, f'trainer_args.{use}')}`" if use else "leave it out"
        problems.add(where, value, f"cannot be set: {refusal['why']}", fix)
        return None
    if all(flag["name"] != name for flag in schema()["flags"]):
        problems.add(where, value, "is no setting of the trainer", _did_you_mean(name))
        return None
    flag = find(name, run.task)
    if run.task not in flag["tasks"] and run.task in find(TASK_FLAG, run.task)["choices"]:
        rule = f"is of the task {' or '.join(flag['tasks'])}, and this is {run.task}"
        problems.add(where, value, rule, "leave it out, or set `trainer_args.task`")
        return None
    return flag


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, {flag["name"] for flag in schema()["flags"]}, n=1)
    return f"did you mean `{near[0]}`?" if near else "leave it out; docs/reference/trainer.md lists all"


def _fix(flag: JSON, text: str) -> str:
    near = difflib.get_close_matches(text, [word for word in flag.get("choices", ()) if isinstance(word, str)], n=1)
    return f"did you mean `{near[0]}`?" if near else f"give such as {flag['example']}"


@cache
def schema() -> JSON:
    """A part of this package, and read when the first trainer is checked."""
    found: JSON = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return found


# --- the trainer's way of reading ---------------------------------------------------------------------------


def _takes(flag: JSON, text: str) -> bool:
    try:
        cast(flag, text)
    except ValueError:
        return False
    return True


def cast(flag: JSON, text: str) -> Any:
    """The value; raises ValueError for a text that the trainer does not take."""
    text = text.strip()
    if flag.get("none") and text.lower() == "none":
        return None
    if "also" in flag and re.fullmatch(flag["also"], text):
        return text
    if flag["type"] == "pattern":
        raise ValueError(text)
    if flag["type"] == "list":
        return [_cast_one(flag["items"], flag, item.strip()) for item in text.split(",")]
    value = _cast_one(flag["type"], flag, text)
    if flag["type"] == "object" and "items" in flag:
        return {name: _cast_one(flag["items"], flag, json.dumps(item)) for name, item in value.items()}
    return value


def _cast_one(type_: str, flag: JSON, text: str) -> Any:
    readers: Mapping[str, Callable[[], Any]] = {
        "text": lambda: text or None,
        "number": lambda: finite(text),
        "integer": lambda: whole(text),
        "boolean": lambda: _BOOLEANS.get(text.lower()),
        "choice": lambda: _choice(flag["choices"], text),
        "object": lambda: value if isinstance(value := _json(text), dict) else None,
        "json": lambda: _json(text),
    }
    value = readers[type_]()
    if value is None or (type_ in _NUMBERS and not _is_within(flag, value)):
        raise ValueError(text)
    return value


def _is_within(flag: JSON, number: float) -> bool:
    return (
        number >= flag.get("minimum", number)
        and number <= flag.get("maximum", number)
        and ("above" not in flag or number > flag["above"])
        and ("below" not in flag or number < flag["below"])
    )


def _choice(choices: list[Any], text: str) -> Any:
    boolean = _BOOLEANS.get(text.lower())
    return next((each for each in choices if (each is boolean if isinstance(each, bool) else each == text)), None)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _json(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
