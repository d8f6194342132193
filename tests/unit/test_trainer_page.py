"""docs/reference/trainer.md lists the flags that the schema has."""

from __future__ import annotations

import re

import pytest

from docs.generate_trainer import PAGE, RULES_TITLE, page
from llmtune_trainer.flags import load
from llmtune_trainer.rules import RULES


def test_the_page_is_current():
    assert page() == PAGE.read_text(), "make docs writes it"


@pytest.mark.parametrize("name", sorted({flag.name for flag in load().flags} | load().refused.keys()))
def test_every_flag_has_one_row_and_so_has_every_field_that_is_none(name):
    flags, _, _ = page().partition(RULES_TITLE)
    rows = re.findall(rf"^\|[^|]*`{name}`[^|]*\|", flags, re.MULTILINE)
    assert len(rows) == sum(flag.name == name for flag in load().flags) + (name in load().refused)


def test_every_rule_has_its_row():
    _, _, rules = page().partition(RULES_TITLE)
    rows = re.findall(r"^\| (`.*) \| .* \| .* \|$", rules, re.MULTILINE)
    assert [re.findall("`([^`]*)`", row) for row in rows] == [list(rule.flags) for rule in RULES]
