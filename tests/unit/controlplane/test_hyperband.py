from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import PastTrial, Reply
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from searches import choice, double, integer, request, search

SPACE = [double("lr", "0", "1"), integer("epochs", "1", "27"), choice("optimizer", "adamw", "sgd")]
SETTINGS = {"r_l": "9", "resource_name": "epochs", "eta": "3"}


def ask(past: list[PastTrial], count: int, known: Mapping[str, str] = SETTINGS, **more: object) -> Reply:
    return load("hyperband").suggest(request(SPACE, past=past, settings=known, **more), count)


def ended(reply: Reply) -> list[PastTrial]:
    """The trials of a reply, the smaller their rate the better."""
    return [PastTrial(dict(one.assignments), "complete", float(one.assignments["lr"])) for one in reply.suggested]


def test_brackets_and_rungs_are_those_of_the_paper() -> None:
    past = search("hyperband", SPACE, lambda point: float(point["lr"]), trials=100, parallel=9, settings=SETTINGS)
    budgets = [trial.assignments["epochs"] for trial in past]
    assert budgets == ["1"] * 9 + ["3"] * 3 + ["9"] + ["3"] * 5 + ["9"] * 2 + ["9"] * 3


def test_the_best_of_a_rung_go_on_with_all_but_their_budget_kept() -> None:
    past = ended(ask([], 9))
    reply = ask(past, 9)
    best = sorted(past, key=lambda trial: trial.value or 0)[:3]
    assert [dict(one.assignments) for one in reply.suggested] == [
        {**trial.assignments, "epochs": "3"} for trial in best
    ]


def test_with_maximize_the_largest_go_on() -> None:
    past = ended(ask([], 9))
    reply = ask(past, 9, minimize=False)
    best = sorted(past, key=lambda trial: -(trial.value or 0))[:3]
    assert [one.assignments["lr"] for one in reply.suggested] == [trial.assignments["lr"] for trial in best]


def test_a_rung_waits_for_its_last_trial_without_having_ended() -> None:
    past = ended(ask([], 9))
    waiting = [*past[:8], PastTrial(past[8].assignments)]
    reply = ask(waiting, 1)
    assert (list(reply.suggested), reply.ended) == ([], False)
    assert reply.state["evaluating_trials"] == "9"


def test_the_last_rung_of_a_bracket_does_not_hold_up_the_next_bracket() -> None:
    past = ended(ask([], 9))
    past += ended(ask(past, 9))
    reply = ask(past, 9)
    assert Counter(one.assignments["epochs"] for one in reply.suggested) == {"9": 1, "3": 5}


def test_failed_trials_never_go_on_and_an_all_failed_rung_ends_its_bracket() -> None:
    drawn = ask([], 9).suggested
    failed = [PastTrial(dict(one.assignments), "failed") for one in drawn]
    good = PastTrial(dict(drawn[4].assignments), "complete", 9.0)
    reply = ask([*failed[:4], good, *failed[5:]], 9)
    assert reply.suggested[0].assignments == {**good.assignments, "epochs": "3"}
    assert len(reply.suggested) == 1
    after = ask(failed, 9)
    assert [one.assignments["epochs"] for one in after.suggested] == ["3"] * 5
    assert after.state["current_s"] == "1"


def test_the_state_tells_where_the_search_is() -> None:
    state = dict(ask([], 4).state)
    assert state == {
        "eta": "3",
        "s_max": "2",
        "r_l": "9.0",
        "b_l": "27.0",
        "r": "1",
        "n": "9",
        "current_s": "2",
        "current_i": "0",
        "resource_name": "epochs",
        "evaluating_trials": "4",
    }


def test_the_state_overlaid_on_the_settings_changes_nothing() -> None:
    first = ask([], 9)
    past = ended(first)
    assert ask(past, 9, {**SETTINGS, **first.state}) == ask(past, 9)


def test_after_the_last_bracket_it_has_ended() -> None:
    past = search("hyperband", SPACE, lambda point: float(point["lr"]), trials=100, parallel=9, settings=SETTINGS)
    reply = ask(past, 1)
    assert (list(reply.suggested), reply.ended) == ([], True)
    assert reply.state["current_s"] == "-1"


def test_a_budget_is_whole_and_at_least_one() -> None:
    known = {"r_l": "10", "resource_name": "epochs"}
    past = search("hyperband", SPACE, lambda point: float(point["lr"]), trials=100, parallel=9, settings=known)
    assert {trial.assignments["epochs"] for trial in past} == {"1", "3", "10"}


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, "r_l and resource_name must be set."),
        ({"r_l": "9"}, "r_l and resource_name must be set."),
        ({"r_l": "x", "resource_name": "epochs"}, "r_l must be a positive float number."),
        ({"r_l": "-1", "resource_name": "epochs"}, "r_l must be a positive float number."),
        ({"r_l": "inf", "resource_name": "epochs"}, "r_l must be a positive float number."),
        ({"r_l": "9", "resource_name": "epochs", "eta": "1"}, "eta is 1, it must be a whole number above 1"),
        ({"r_l": "9", "resource_name": "epochs", "eta": "x"}, "eta is x, it must be a whole number above 1"),
        ({"r_l": "27", "resource_name": "epochs"}, "parallelTrialCount must be not less than 27."),
        ({"r_l": "9", "resource_name": "steps"}, "value of resource_name setting must be in parameters."),
    ],
)
def test_bad_settings_are_refused_in_katibs_words(known: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        load("hyperband").validate(request(SPACE, settings=known))
    assert str(caught.value) == text


@pytest.mark.parametrize(("r_l", "eta", "least"), [("9", "3", 9), ("243", "3", 243), ("8", "2", 8), ("9", "-2", 9)])
def test_so_many_trials_must_run_in_parallel_as_the_first_rung_has(r_l: str, eta: str, least: int) -> None:
    known = {"r_l": r_l, "resource_name": "epochs", "eta": eta}
    load("hyperband").validate(request(SPACE, settings=known, parallel_trial_count=least))
    with pytest.raises(InvalidSettingsError, match=rf"not less than {least}\."):
        load("hyperband").validate(request(SPACE, settings=known, parallel_trial_count=least - 1))


def test_strict_fills_the_first_request_whatever_its_size() -> None:
    assert len(ask([], 12, strict=True).suggested) == 12
    assert len(ask([], 12).suggested) == 9
