"""What stands for an object's own name becomes that name, wherever in the manifest it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from airflow_llmtune.resources.meta import is_plain
from airflow_llmtune.resources.own_name import OWN_NAME, fill_in


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (OWN_NAME, "dag-1"),
        (f"{OWN_NAME}-credentials", "dag-1-credentials"),
        ([f"/out/{OWN_NAME}/${{x}}", f"{OWN_NAME}{OWN_NAME}"], ["/out/dag-1/${x}", "dag-1dag-1"]),
        ({"env": [{"valueFrom": {"name": OWN_NAME}}], "n": 1, "none": None, "yes": True},
         {"env": [{"valueFrom": {"name": "dag-1"}}], "n": 1, "none": None, "yes": True}),
        ("own-name", "own-name"),
    ],
)  # fmt: skip
def test_it_is_replaced_in_a_copy(given: Any, named: Any) -> None:
    before = copy.deepcopy(given)
    assert fill_in(given, "dag-1") == named
    assert given == before, "the next attempt, of another name, is made of it"


def test_no_authors_text_can_hold_it() -> None:
    assert not is_plain(OWN_NAME)
