"""Whose an object is, over retries, clears, edits and runs of the same name."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_llmtune.operators.claim import UNUSABLE, Claim, attempt_of
from airflow_llmtune.resources.meta import DELIVERED_ANNOTATION

MANIFEST = {"spec": {"maxTrialCount": 3}}


def claim(**changes: Any) -> Claim:
    values = {
        "id": uuid.UUID(int=1),
        "map_index": -1,
        "max_tries": 1,
        "run_after": datetime(2026, 11, 22, tzinfo=UTC),
        "clear_number": 0,
        **changes,
    }
    ti = SimpleNamespace(
        id=values["id"],
        dag_id="dag",
        task_id="task",
        run_id="run",
        map_index=values["map_index"],
        max_tries=values["max_tries"],
    )
    return Claim.of({"ti": ti, "dag_run": SimpleNamespace(**values)})


def made_by(owner: Claim, attempt: int = 1, delivered: str | None = None) -> dict[str, Any]:
    annotations = owner.annotations(MANIFEST) | ({} if delivered is None else {DELIVERED_ANNOTATION: delivered})
    return {"metadata": {"labels": owner.labels(attempt), "annotations": annotations}}


def test_a_retry_asks_for_the_same_but_is_another_owner():
    first, retry = claim(), claim(id=uuid.UUID(int=2))
    assert retry.asked_for(made_by(first), MANIFEST)
    assert retry.name(1) == first.name(1)
    assert not retry.owns(made_by(first))


@pytest.mark.parametrize(
    "changes", [{"run_after": datetime(2026, 11, 23, tzinfo=UTC)}], ids=["another run of the same name"]
)
def test_what_another_run_asked_for_is_not_ours(changes):
    assert not claim(**changes).asked_for(made_by(claim()), MANIFEST)


def test_what_was_asked_for_before_an_edit_is_not_what_is_asked_for_now():
    assert not claim().asked_for(made_by(claim()), {"spec": {"maxTrialCount": 4}})


@pytest.mark.parametrize(
    ("delivered", "changes", "usable"),
    [
        (None, {}, True),
        (claim().epoch, {}, True),
        (claim().epoch, {"id": uuid.UUID(int=2)}, True),
        (claim().epoch, {"clear_number": 1}, False),
        (claim().epoch, {"max_tries": 3}, False),
        (UNUSABLE, {}, False),
    ],
)
def test_a_result_is_returned_once_per_clear(delivered, changes, usable):
    assert claim(**changes).may_use_result(made_by(claim(), delivered=delivered)) is usable


def test_the_attempt_is_read_from_the_label():
    assert attempt_of(made_by(claim(), attempt=7)) == 7


def test_the_instances_of_a_mapped_task_have_names_of_their_own():
    assert len({claim(map_index=index).name(1) for index in (-1, 0, 1)}) == 3
