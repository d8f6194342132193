"""When a wait looks closer, on a clock that the test moves."""

from __future__ import annotations

import pytest

from airflow_llmtune.triggers import patience
from airflow_llmtune.triggers.patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def test_nothing_is_ever_due_without_a_limit(clock):
    wait = Patience(None, None)
    wait.complain()
    clock.now += 1e9
    assert (wait.has_stalled, wait.wants_a_look, wait.seconds_left) == (False, False, None)


def test_without_a_complaint_no_timer_runs(clock):
    assert Patience(None, 600.0).seconds_left is None


def test_it_stalls_once_nothing_moved_for_so_long(clock):
    wait = Patience(60.0, 600.0)
    clock.now += 59
    assert (wait.has_stalled, wait.seconds_left) == (False, 1.0)
    wait.moved()
    assert wait.seconds_left == 60.0
    clock.now += 60
    assert (wait.has_stalled, wait.wants_a_look, wait.seconds_left) == (True, False, 0.0)


def test_it_looks_after_a_complaint_that_repeats_itself(clock):
    wait = Patience(None, 600.0)
    clock.now += 5000  # It may have waited for a node meanwhile.
    wait.complain()
    clock.now += 400
    wait.complain()
    assert (wait.wants_a_look, wait.seconds_left) == (False, 200.0)
    clock.now += 200
    assert wait.wants_a_look


def test_after_a_look_only_another_complaint_is_a_reason_for_the_next(clock):
    wait = Patience(None, 600.0)
    wait.complain()
    clock.now += 600
    wait.looked()
    clock.now += 600
    assert not wait.wants_a_look
    wait.complain()
    assert wait.seconds_left == 600.0


def test_progress_and_an_api_server_that_does_not_answer_put_it_off(clock):
    wait = Patience(60.0, 600.0)
    wait.complain()
    clock.now += 590
    wait.moved()
    assert not wait.wants_a_look
    clock.now += 50
    wait.hold()
    assert wait.seconds_left == 60.0


def test_what_was_warned_of_is_quiet_until_there_is_progress(clock):
    wait = Patience(60.0, 600.0)
    clock.now += 60
    wait.keep_quiet()
    wait.complain()
    wait.hold()
    clock.now += 10_000
    assert (wait.has_stalled, wait.wants_a_look, wait.seconds_left) == (False, False, None)
    wait.moved()
    clock.now += 60
    assert wait.has_stalled
