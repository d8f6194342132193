"""schema.json as it lies in the repository; tests/trainer/test_schema.py compares it with the libraries' classes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import airflow_llmtune
from llmtune_trainer.flags import SCHEMA, Flag, Kind, load, text_of
from llmtune_trainer.rules import Rule
from llmtune_trainer.settings import HOUSEKEEPING, OWN_FLAGS, TASKS

COPY = Path(airflow_llmtune.__file__).parent / "resources" / "trainer_schema.json"


def flag_id(flag: Flag) -> str:
    return f"{flag.name} of {flag.tasks[0]}"


def test_the_operators_have_the_same_schema() -> None:
    assert COPY.read_bytes() == SCHEMA.read_bytes(), "python -m llmtune_trainer.schema writes both"


def test_our_own_settings_are_in_it_as_they_are() -> None:
    assert [flag for flag in load().flags if not flag.classes] == list(OWN_FLAGS)
    assert tuple(json.loads(SCHEMA.read_text())["housekeeping"]) == HOUSEKEEPING


def test_no_name_is_both_a_flag_and_refused() -> None:
    assert load().names & load().refused.keys() == set()


def test_what_is_to_be_used_instead_is_a_flag() -> None:
    told = json.loads(SCHEMA.read_text())["refused"]
    assert {refusal["use"] for refusal in told.values()} - {None} <= load().names


def test_flags_of_one_name_are_of_different_tasks() -> None:
    for name in load().names:
        tasks = [task for flag in load().flags if flag.name == name for task in flag.tasks]
        assert len(tasks) == len(set(tasks)), name


@pytest.mark.parametrize("rule", load().rules, ids=lambda rule: f"{rule.flags[0]} {rule.why}")
def test_a_rule_is_about_flags_and_what_they_take(rule: Rule) -> None:
    assert {*rule.flags, *rule.others} | set(re.findall(r"\{(\w+)\}", rule.why + rule.fix)) <= load().names
    for name, words in (*rule.beside.items(), *rule.without.items()):
        kinds = {load().find(name, task).kind for task in TASKS}
        assert all(kind.type == "object" or kind.cast(text_of(word)) == word for kind in kinds for word in words)


@pytest.mark.parametrize("flag", load().flags, ids=flag_id)
def test_examples_and_defaults_are_values_of_a_flag(flag: Flag) -> None:
    flag.kind.cast(flag.kind.example)
    if flag.default is not None:
        assert flag.kind.cast(text_of(flag.default)) == flag.default


@pytest.mark.parametrize("flag", load().flags, ids=flag_id)
def test_a_flag_is_written_as_it_is_read(flag: Flag) -> None:
    told = json.loads(json.dumps(flag.to_json()))
    assert told == next(each for each in json.loads(SCHEMA.read_text())["flags"] if each == told)


@pytest.mark.parametrize(
    "flag", [flag for flag in load().flags if flag.kind.type in ("integer", "number")], ids=flag_id
)
def test_numbers_have_bounds_unless_any_number_will_do(flag: Flag) -> None:
    bounds = (flag.kind.minimum, flag.kind.above, flag.kind.maximum, flag.kind.below)
    assert bounds != (None, None, None, None) or flag.name == "f_alpha_divergence_coef"


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Kind("number"), "must be a number"),
        (Kind("number", minimum=0, below=1, none=True), "must be a number of at least 0 and below 1, or none"),
        (Kind("list", "integer", minimum=0), "must be whole numbers of at least 0 separated by commas"),
        (Kind("list", "choice", choices=("a", "b")), "must be words separated by commas, each one of a, b"),
        (Kind("choice", choices=(True, "a")), "must be one of true, a"),
        (Kind("object", "number", above=0), "must be a JSON object of numbers above 0"),
        (Kind("pattern", also="a|b", also_told="a or b"), "must be a or b"),
        (Kind("integer", also="auto", also_told="auto", none=True), "must be a whole number, or auto, or none"),
    ],
)
def test_a_rule_says_what_is_taken(kind: Kind, rule: str) -> None:
    assert kind.rule() == rule


def test_what_nests_too_deep_is_no_json() -> None:
    with pytest.raises(ValueError, match=r"^\[\["):
        Kind("json").cast("[" * 100_000)
