"""The flags of our own trainer, checked before a pod starts: names, types and bounds as its schema has them.

``trainer_schema.json`` is a copy of the trainer's ``schema.json``, and what is read here is read there in the same way;
tests hold them together. Which flags contradict each other is the trainer's to say.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
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
    "check_flags",
    "check_parameter",
    "is_of_trainer",
    "is_true",
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


def takes_json(name: str) -> bool:
    return any(flag["name"] == name and flag["type"] in _JSON for flag in _schema()["flags"])


def check_flags(argument: str, flags: Mapping[str, str], run: Run, problems: Problems) -> None:
    """``flags`` as the texts that the trainer is given."""
    for name, text in flags.items():
        where = f"{argument}.{name}"
        flag = _read_name(where, name, text, run, problems)
        if flag is None:
            continue
        if run.evaluates and not flag.get("evaluates") and name not in _schema()["housekeeping"]:
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
    if refusal := _schema()["refused"].get(name):
        use = refusal["use"]
        fix = f"use `{run.arguments.get(use, f'trainer_args.{use}')}`" if use else "leave it out"
        problems.add(where, value, f"cannot be set: {refusal['why']}", fix)
        return None
    alike: list[JSON] = [flag for flag in _schema()["flags"] if flag["name"] == name]
    if not alike:
        problems.add(where, value, "is no setting of the trainer", _did_you_mean(name))
        return None
    of_task = [flag for flag in alike if run.task in flag["tasks"]]
    if not of_task and run.task in _tasks():
        rule = f"is of the task {' or '.join(alike[0]['tasks'])}, and this is {run.task}"
        problems.add(where, value, rule, "leave it out, or set `trainer_args.task`")
        return None
    return (of_task or alike)[0]


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, {flag["name"] for flag in _schema()["flags"]}, n=1)
    return f"did you mean `{near[0]}`?" if near else "leave it out; docs/reference/trainer.md lists all"


def _fix(flag: JSON, text: str) -> str:
    near = difflib.get_close_matches(text, [word for word in flag.get("choices", ()) if isinstance(word, str)], n=1)
    return f"did you mean `{near[0]}`?" if near else f"give such as {flag['example']}"


def _tasks() -> list[str]:
    (task,) = (flag for flag in _schema()["flags"] if flag["name"] == TASK_FLAG)
    return list(task["choices"])


@cache
def _schema() -> JSON:
    """A part of this package, and read when the first trainer is checked."""
    schema: JSON = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return schema


# --- the trainer's way of reading ---------------------------------------------------------------------------


def _takes(flag: JSON, text: str) -> bool:
    text = text.strip()
    if flag.get("none") and text.lower() == "none":
        return True
    if "also" in flag and re.fullmatch(flag["also"], text):
        return True
    if flag["type"] == "pattern":
        return False
    return all(_is_of_type(type_, flag, part) for type_, part in _parts(flag, text))


def _parts(flag: JSON, text: str) -> Iterator[tuple[str, str]]:
    """What has to be of which type: items of a list, and what an object holds."""
    if flag["type"] == "list":
        yield from ((flag["items"], item.strip()) for item in text.split(","))
        return
    yield flag["type"], text
    if flag["type"] == "object" and "items" in flag and isinstance(_json(text), dict):
        yield from ((flag["items"], json.dumps(item)) for item in _json(text).values())


def _is_of_type(type_: str, flag: JSON, text: str) -> bool:
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
    if value is None:
        return False
    return type_ not in _NUMBERS or _is_within(flag, value)


def _is_within(flag: JSON, number: float) -> bool:
    return (
        number >= flag.get("minimum", number)
        and number <= flag.get("maximum", number)
        and ("above" not in flag or number > flag["above"])
        and ("below" not in flag or number < flag["below"])
    )


def _choice(choices: list[Any], text: str) -> Any:
    boolean = _BOOLEANS.get(text.lower())
    return any(choice is boolean if isinstance(choice, bool) else choice == text for choice in choices) or None


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _json(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
