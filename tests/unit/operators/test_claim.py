"""Whose an object is, over retries, clears, edits and runs of the same name."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_llmtune.exceptions import StaleObjectError, SupersededError
from airflow_llmtune.operators.claim import UNUSABLE, Claim, Policy, attempt_of, decide, fingerprint_of
from airflow_llmtune.resources.meta import DELIVERED_ANNOTATION, TASK_ANNOTATION, Outcome

ASKED, EDITED = fingerprint_of({"trials": 3}), fingerprint_of({"trials": 4})
ANOTHER_RUN = {"id": uuid.UUID(int=9)}  # with the same name and times
RETRY = {"id": uuid.UUID(int=2), "try_number": 2}
CLEARED = {**RETRY, "max_tries": 3}
RUNNING, SUCCEEDED, FAILED = Outcome("Running"), Outcome("Succeeded"), Outcome("Failed")


def claim(**changes: Any) -> Claim:
    values = {
        "id": uuid.UUID(int=1),
        "map_index": -1,
        "try_number": 1,
        "max_tries": 1,
        "run_after": datetime(2026, 11, 22, tzinfo=UTC),
        **changes,
    }
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", **values)
    return Claim.of({"ti": ti, "dag_run": SimpleNamespace(**values)})


def made_by(owner: Claim, attempt: int = 1, delivered: str | None = None) -> dict[str, Any]:
    annotations = owner.annotations(ASKED) | ({} if delivered is None else {DELIVERED_ANNOTATION: delivered})
    return {"metadata": {"name": owner.name(attempt), "labels": owner.labels(attempt), "annotations": annotations}}


def test_a_retry_has_the_same_names_but_is_another_owner():
    first, retry = claim(), claim(**RETRY)
    assert retry.name(1) == first.name(1)
    assert retry.epoch == first.epoch
    assert not retry.owns(made_by(first))


@pytest.mark.parametrize(
    ("changes", "outcome", "delivered", "policy", "action"),
    [
        # A retry, or the same try that lost the answer to its create.
        ({}, RUNNING, None, {}, "adopt"),
        (RETRY, RUNNING, None, {}, "adopt"),
        (RETRY, SUCCEEDED, None, {}, "adopt"),
        (RETRY, SUCCEEDED, claim().epoch, {}, "adopt"),
        (RETRY, SUCCEEDED, UNUSABLE, {}, "past"),
        (RETRY, FAILED, None, {}, "past"),
        (RETRY, FAILED, None, {"uses_failed": True}, "adopt"),
        (RETRY, FAILED, UNUSABLE, {"uses_failed": True}, "past"),
        # A human cleared the task.
        (CLEARED, RUNNING, None, {}, "replace"),
        (CLEARED, SUCCEEDED, None, {}, "past"),
        (CLEARED, SUCCEEDED, claim().epoch, {}, "past"),
        (CLEARED, RUNNING, None, {"on_clear": "adopt"}, "adopt"),
        (CLEARED, SUCCEEDED, claim().epoch, {"on_clear": "adopt"}, "adopt"),
        (CLEARED, FAILED, None, {"on_clear": "adopt"}, "past"),
        # A run was deleted, and another of the same name started.
        (ANOTHER_RUN, RUNNING, None, {"on_clear": "adopt", "on_stale": "adopt"}, "replace"),
        (ANOTHER_RUN, SUCCEEDED, None, {"on_clear": "adopt", "on_stale": "adopt"}, "past"),
    ],
)
def test_a_new_try_makes_the_most_of_what_it_finds(changes, outcome, delivered, policy, action):
    found = made_by(claim(), delivered=delivered)
    assert decide(claim(**changes), found, outcome, ASKED, Policy(**policy)).action == action


@pytest.mark.parametrize(
    ("outcome", "on_stale", "action"),
    [
        (RUNNING, "restart", "replace"),
        (SUCCEEDED, "restart", "past"),
        (RUNNING, "adopt", "adopt"),
        (SUCCEEDED, "adopt", "adopt"),
    ],
)
def test_changed_arguments_are_dealt_with_as_the_author_wants(outcome, on_stale, action):
    policy = Policy(on_stale=on_stale)
    assert decide(claim(**RETRY), made_by(claim()), outcome, EDITED, policy).action == action


def test_changed_arguments_fail_where_the_author_wants_to_know():
    with pytest.raises(StaleObjectError, match='on_stale="restart"'):
        decide(claim(**RETRY), made_by(claim()), RUNNING, EDITED, Policy(on_stale="fail"))


def test_a_lost_try_that_is_found_again_takes_nothing_back():
    with pytest.raises(SupersededError, match="belongs to a newer try"):
        decide(claim(), made_by(claim(**RETRY)), RUNNING, ASKED, Policy())


@pytest.mark.parametrize(("outcome", "action"), [(RUNNING, "replace"), (SUCCEEDED, "past")])
def test_the_tries_of_a_run_that_was_deleted_count_for_nothing(outcome, action):
    found = made_by(claim(**RETRY), delivered=claim().epoch)
    assert decide(claim(**ANOTHER_RUN), found, outcome, ASKED, Policy()).action == action


def test_a_copy_that_somebody_made_of_an_object_is_not_ours():
    ours = made_by(claim())
    assert claim().made(ours)
    assert not claim().made({"metadata": {**ours["metadata"], "name": "experiment-of-mine"}})
    assert not claim().made({"metadata": {**ours["metadata"], "labels": {}}})


def test_the_last_try_answers_for_what_earlier_ones_made_and_for_nothing_else():
    assert claim(**RETRY).answers_for(made_by(claim()))
    assert claim(**RETRY).answers_for(made_by(claim(**RETRY)))
    assert not claim().answers_for(made_by(claim(**RETRY)))
    assert not claim(**ANOTHER_RUN).answers_for(made_by(claim()))


def test_what_is_being_deleted_is_left_to_that():
    found = made_by(claim())
    found["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
    assert decide(claim(**RETRY), found, RUNNING, ASKED, Policy()).action == "past"


def test_a_clear_of_another_task_of_the_run_is_no_clear_of_this_one():
    assert claim(clear_number=1).epoch == claim(clear_number=0).epoch


def test_the_whole_names_of_the_task_are_on_the_object():
    assert json.loads(claim(map_index=3).annotations(ASKED)[TASK_ANNOTATION]) == ["dag", "task", "run", 3]


def test_the_attempt_is_read_from_the_label():
    assert attempt_of(made_by(claim(), attempt=7)) == 7


def test_the_instances_of_a_mapped_task_have_names_of_their_own():
    assert len({claim(map_index=index).name(1) for index in (-1, 0, 1)}) == 3
