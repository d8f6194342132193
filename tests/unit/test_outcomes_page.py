"""The page of outcomes is made from the cases of the chaos harness, which makes each of its rows happen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction

from airflow_llmtune import exceptions
from docs import generate_outcomes
from docs.generate_outcomes import PAGE, RETRIES, PageError, page
from tests.chaos.cases import FAULTS, KILLS, PHASES, TARGETS
from tests.chaos.event_cases import EVENTS
from tests.chaos.retry_policy import RETRY_POLICY
from tests.chaos.scenarios import PLACES, SCENARIOS


def test_the_page_is_what_make_docs_writes():
    assert PAGE.read_text() == page(), "run `make docs`"


def test_something_makes_each_event_happen():
    assert sorted(SCENARIOS) == sorted(event.name for event in EVENTS)
    assert PLACES.keys() <= SCENARIOS.keys()


def test_whatever_dies_dies_in_every_way_and_phase():
    assert len({(kill.target, kill.fault, kill.phase) for kill in KILLS}) == len(TARGETS) * len(FAULTS) * len(PHASES)


def test_each_case_has_a_name_of_its_own():
    names = [case.name for case in (*KILLS, *EVENTS)]
    assert len(set(names)) == len(names)
    assert len({event.dag_id for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("change", [{"NewError": ""}, {"OutcomeError": None}])
def test_an_exception_that_the_page_says_nothing_of_is_told(monkeypatch, change):
    told = {name: text for name, text in {**RETRIES, **change}.items() if text is not None}
    monkeypatch.setattr(generate_outcomes, "RETRIES", told)
    with pytest.raises(PageError, match=next(iter(change))):
        page()


@pytest.mark.parametrize(
    ("name", "action", "delay"),
    [
        ("ExperimentFailedError", RetryAction.FAIL, None),
        ("CannotStartError", RetryAction.FAIL, None),
        ("StaleObjectError", RetryAction.FAIL, None),
        ("PermissionDeniedError", RetryAction.RETRY, timedelta(minutes=5)),
        ("KubernetesApiError", RetryAction.RETRY, timedelta(minutes=5)),
        ("SourceVersionError", RetryAction.DEFAULT, None),
    ],
)
def test_the_retry_policy_of_the_page_tells_failures_apart(name, action, delay):
    # In the form in which Airflow stores it with the DAG.
    policy = ExceptionRetryPolicy.deserialize(RETRY_POLICY.serialize())
    decision = policy.evaluate(getattr(exceptions, name)("for a reason"), try_number=1, max_tries=3)
    assert (decision.action, decision.retry_delay) == (action, delay)
