"""``python -m llmtune_trainer.schema`` writes ``schema.json``: every flag, with type, rule, default and help.

Which flags contradict each other is as the table of ``rules`` has it. Ours come from the fields of ``Settings``; the
others from fields and annotations of the installed TrainingArguments, SFTConfig, DPOConfig and LoraConfig. A field of
theirs that the tables of ``hyperparameters`` do not know is a flag as its annotation says, or an error if that does not
tell enough. Imports torch; whoever parses reads the file instead.
"""

from __future__ import annotations

import fnmatch
import json
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from peft import LoraConfig
from transformers import SchedulerType, TrainingArguments
from trl import DPOConfig, SFTConfig

from llmtune_trainer.flags import SCHEMA, Flag, Kind, text_of
from llmtune_trainer.hyperparameters import (
    BOUNDS,
    DEFAULTS,
    EVALUATES,
    EXAMPLES,
    KINDS,
    LORA_NAMES,
    NOT_SEARCHED,
    REFUSED,
    TASKS_OF,
)
from llmtune_trainer.rules import RULES, Rule
from llmtune_trainer.settings import HOUSEKEEPING, LR_SCHEDULERS, OWN_FLAGS, TASKS

# Each with the tasks that make one of it. A field is told where it is declared first.
CLASSES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (TrainingArguments, TASKS),
    (SFTConfig, ("sft",)),
    (DPOConfig, ("dpo",)),
    (LoraConfig, TASKS),
)
_LONGEST_HELP = 160
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text"}
_EXAMPLES = {
    "boolean": "true",
    "integer": "1",
    "number": "0.1",
    "text": "name",
    "object": '{"name": 1}',
    "json": "[1, 2]",
}
# The copies are compared by a test: trainer and provider share no code.
COPIES = (SCHEMA, Path(__file__).parents[2] / "airflow_llmtune" / "resources" / "trainer_schema.json")


class SchemaError(Exception):
    """The tables and the installed classes disagree."""


def schema() -> str:
    """The file's text."""
    refused = {name: {"why": refusal.why, "use": refusal.use} for refusal in REFUSED for name in refusal.names}
    found = list(_hyperparameters())
    own = {flag.name for flag in OWN_FLAGS}
    _check_tables({flag.name for flag in found}, own, refused.keys())
    flags = [*OWN_FLAGS, *_merged(flag for flag in found if flag.name not in own | refused.keys())]
    told = {
        "flags": [flag.to_json() for flag in flags],
        "housekeeping": list(HOUSEKEEPING),
        "refused": dict(sorted(refused.items())),
        "rules": [_written_out(rule, sorted({flag.name for flag in flags})).to_json() for rule in RULES],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _check_tables(found: set[str], own: set[str], refused: Iterable[str]) -> None:
    plain = {
        name.partition(" ")[0] for name in (*KINDS, *BOUNDS, *EXAMPLES, *TASKS_OF, *EVALUATES, *NOT_SEARCHED, *DEFAULTS)
    }
    if unknown := (plain | set(refused)) - found:
        raise SchemaError(f"no class has a field for {sorted(unknown)}")
    if twice := own & (plain | set(refused)):
        raise SchemaError(f"of the trainer's own settings, so not for the tables: {sorted(twice)}")
    if set(LR_SCHEDULERS) != {kind.value for kind in SchedulerType}:
        raise SchemaError("LR_SCHEDULERS is not SchedulerType")


def _written_out(rule: Rule, names: list[str]) -> Rule:
    """With the flags that a pattern stands for."""
    found = {pattern: fnmatch.filter(names, pattern) for pattern in rule.flags}
    strange = {pattern for pattern, flags in found.items() if not flags} | rule.others - set(names)
    if strange:
        raise SchemaError(f"a rule is about what is no flag: {sorted(strange)}")
    return replace(rule, flags=tuple(chain(*found.values())))


def _hyperparameters() -> Iterator[Flag]:
    inherited = {option.name for option in fields(TrainingArguments)}
    refused = {name for refusal in REFUSED for name in refusal.names}
    own = {flag.name for flag in OWN_FLAGS}
    for class_, tasks in CLASSES:
        hints = get_type_hints(class_)
        for option in fields(class_):
            if class_ in (SFTConfig, DPOConfig) and option.name in inherited:
                continue
            name = _flag_name(class_, option)
            heeding = tuple(task for task in tasks if task in TASKS_OF.get(name, TASKS))
            if not heeding:
                continue
            # Whatever is not read may be of any type.
            hint = str if name in refused or name in own else hints[option.name]
            yield _flag(name, class_, option, hint, heeding)


def _flag_name(class_: type, option: Field[Any]) -> str:
    return LORA_NAMES.get(option.name, f"lora_{option.name}") if class_ is LoraConfig else option.name


def _flag(name: str, class_: type, option: Field[Any], hint: Any, tasks: tuple[str, ...]) -> Flag:
    key = f"{name} of {tasks[0]}" if f"{name} of {tasks[0]}" in (*KINDS, *EVALUATES) else name
    kind = KINDS.get(key) or _kind(name, hint, option)
    bounds: dict[str, Any] = BOUNDS.get(name, {})
    kind = replace(kind, **bounds)
    default = DEFAULTS.get(name, _default(option))
    heirs = [heir.__name__ for heir, _ in CLASSES if issubclass(heir, class_)]
    return Flag(
        name=name,
        kind=replace(kind, example=EXAMPLES.get(name) or kind.example or _example(kind, default)),
        default=default,
        help=_help(str(option.metadata.get("help", ""))),
        tasks=tasks,
        classes=tuple(heirs),
        field=option.name,
        evaluates=key in EVALUATES,
        searched=name not in NOT_SEARCHED,
    )


def _merged(found: Iterable[Flag]) -> list[Flag]:
    """Make one of the flags that are the same in two classes."""
    merged: dict[tuple[str, Kind], Flag] = {}
    for flag in found:
        first = merged.setdefault((flag.name, flag.kind), flag)
        if first is not flag:
            both: dict[str, Any] = {"tasks": (*first.tasks, *flag.tasks), "classes": (*first.classes, *flag.classes)}
            merged[flag.name, flag.kind] = replace(first, **both)
    return list(merged.values())


def _kind(name: str, hint: Any, option: Field[Any]) -> Kind:
    parts = _parts(hint)
    none = type(None) in parts
    choices = option.metadata.get("choices")
    enums = [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]
    if choices or enums:
        words = tuple(choices) if choices else tuple(member.value for member in enums[0])
        return Kind("choice", choices=words, none=none)
    if literals := [word for part in parts if get_origin(part) is Literal for word in get_args(part)]:
        return Kind("choice", choices=tuple(literals), none=none)
    if any(part is dict or get_origin(part) is dict for part in parts):
        return Kind("object", none=none)
    if lists := [part for part in parts if get_origin(part) is list]:
        return Kind("list", _TYPES[get_args(lists[0])[0]], none=none)
    if any(isinstance(part, type) and is_dataclass(part) for part in parts):
        return Kind("object", none=none)
    plain = [part for part in parts if part is not type(None)]
    if len(plain) != 1 or plain[0] not in _TYPES:
        raise SchemaError(f"{name}: what is a value of type {hint}? Say so in KINDS, or refuse it")
    return Kind(_TYPES[plain[0]], none=none)


def _parts(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(part for each in get_args(hint) for part in _parts(each))
    return (hint,)


def _default(option: Field[Any]) -> Any:
    default = option.default_factory() if option.default_factory is not MISSING else option.default
    value = default.value if isinstance(default, Enum) else default
    return None if value == {} or is_dataclass(value) else value


def _example(kind: Kind, default: Any) -> str:
    if default is not None and default != "":
        return text_of(default)
    if kind.choices:
        return text_of(kind.choices[0])
    return _EXAMPLES.get(kind.type) or f"{_EXAMPLES[str(kind.items)]},{_EXAMPLES[str(kind.items)]}"


def _help(text: str) -> str:
    """Return its first sentence, without what is for browsers and for argparse."""
    text = re.sub(r"</?a\b[^>]*>", "", " ".join(text.split())).replace("%%", "%")
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    first = re.split(r"(?<=[^.][a-z`')\]])\.\s", text, maxsplit=1)[0].rstrip(".")
    return first if len(first) <= _LONGEST_HELP else first[:_LONGEST_HELP].rpartition(" ")[0] + " …"


def main() -> int:
    text = schema()
    for file in COPIES:
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
