from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.population_labels import GENERATION_LABEL, PARENT_LABEL
from airflow_llmtune.controlplane.algorithms.request import PastTrial, Suggested, TrialOutcome
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from both_modes import both_modes
from searches import choice, double, integer, request, search

SPACE = [
    double("lr", "0.0", "1.0", step="0.01"),
    integer("layers", "2", "64", step="2"),
    choice("optimizer", "adamw", "sgd", "lion"),
]
SETTINGS = {"suggestion_trial_dir": "/opt/ckpt", "n_population": "5", "truncation_threshold": "0.2"}


def ask(past: Sequence[PastTrial], count: int, *, strict: bool = False, **more: str) -> Sequence[Suggested]:
    known = {**SETTINGS, **more, "random_state": "4"}
    return load("pbt").suggest(request(SPACE, past=past, settings=known, strict=strict), count).suggested


def known(suggested: Sequence[Suggested], outcome: TrialOutcome = "complete") -> list[PastTrial]:
    """The trials of a reply: the later the better."""
    value = None if outcome != "complete" else 0.0
    return [
        PastTrial(dict(one.assignments), outcome, None if value is None else -float(index), one.name, one.labels)
        for index, one in enumerate(suggested)
    ]


def generation(one: Suggested) -> str:
    return one.labels[GENERATION_LABEL]


def test_trials_are_named_after_the_experiment_and_a_uuid_and_labelled_with_their_generation() -> None:
    first = ask([], 5)
    assert all(re.fullmatch(r"exp-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f-]{17}", one.name) for one in first)
    assert len({one.name for one in first}) == 5
    assert [dict(one.labels) for one in first] == [{GENERATION_LABEL: "0"}] * 5


def test_more_of_the_first_generation_are_made_while_it_lacks_results() -> None:
    past = known(ask([], 5))
    assert [generation(one) for one in ask(past[:4], 2)] == ["0", "0"]
    assert [generation(one) for one in ask(past, 2)] == ["1", "1"]


def test_each_member_of_a_generation_gets_one_child() -> None:
    past = known(ask([], 5))
    children = ask(past, 5)
    assert [generation(one) for one in children] == ["1"] * 5
    worst, *others = past
    assert [one.labels[PARENT_LABEL] for one in children[1:]] == [one.name for one in others]
    assert children[0].labels[PARENT_LABEL] != worst.name


@both_modes("exploit-keeps-worse-checkpoint")
def test_the_worst_member_is_replaced_by_a_copy_of_the_best(strict: bool) -> None:
    past = known(ask([], 5))
    child = ask(past, 5, strict=strict)[0]
    assert child.assignments == past[4].assignments
    assert child.labels[PARENT_LABEL] == (past[0] if strict else past[4]).name


def test_who_explores_moves_every_parameter_a_little() -> None:
    past = known(ask([], 5))
    for parent, child in zip(past[1:], ask(past, 5)[1:], strict=True):
        before, after = float(parent.assignments["lr"]), float(child.assignments["lr"])
        assert abs(after - before) <= max(0.2 * before, 0.01) + 0.0051
        assert int(child.assignments["layers"]) % 2 == 0
        assert child.assignments["optimizer"] != parent.assignments["optimizer"]
        assert after != before or before in {0.0, 1.0}


@pytest.mark.parametrize(("probability", "kept"), [("0", True), ("1", False)])
def test_with_a_resample_probability_parameters_are_kept_or_drawn_anew(probability: str, kept: bool) -> None:
    past = known(ask([], 5))
    children = ask(past, 5, resample_probability=probability)[1:]
    same = [
        child.assignments["lr"] == parent.assignments["lr"] for parent, child in zip(past[1:], children, strict=True)
    ]
    assert all(same) if kept else not all(same)


def test_a_failed_trial_is_tried_again_once_at_a_time() -> None:
    first = ask([], 5)
    past = [*known(first[:1], "failed"), *known(first[1:])]
    again, other = ask(past, 2)
    assert again.assignments == first[0].assignments
    assert again.name != first[0].name
    assert generation(again) == generation(other) == "0"
    assert other.assignments != first[0].assignments


def test_a_retried_child_keeps_its_parent() -> None:
    past = known(ask([], 5))
    (child,) = ask(past, 1)
    (again,) = ask([*past, *known([child], "failed")], 1)
    assert (again.assignments, again.labels) == (child.assignments, child.labels)


def test_a_population_gets_better_over_the_generations() -> None:
    past = search(
        "pbt",
        SPACE,
        lambda point: abs(float(point["lr"]) - 0.7),
        trials=60,
        parallel=5,
        settings={**SETTINGS, "random_state": "1"},
    )
    first, last = ([trial.value or 0 for trial in group] for group in (past[:10], past[-10:]))
    assert sum(last) < 0.75 * sum(first)
    assert int(past[-1].labels[GENERATION_LABEL]) >= 6


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"settings": {}}, "Required params missing: suggestion_trial_dir, n_population, truncation_threshold"),
        ({"settings": {**SETTINGS, "n_population": "4"}}, "Param(n_population) should be >= 5"),
        ({"settings": {**SETTINGS, "n_population": "x"}}, "Exception calling application: invalid literal for int() "),
        (
            {"settings": {**SETTINGS, "truncation_threshold": "1.1"}},
            "Param(truncation_threshold) should be between 0 and 1, inclusive",
        ),
        (
            {"settings": {**SETTINGS, "resample_probability": "2"}},
            "Param(resample_probability) should be null to perturb at 0.8 or 1.2, or be between 0 and 1, inclusive, ",
        ),
        ({"resume_policy": "Never"}, "pbt keeps its checkpoints on a volume, so spec.resumePolicy must be FromVolume"),
        ({"experiment_name": "n" * 27}, "pbt labels trials with names made of the Experiment's and a UUID: "),
    ],
)
def test_bad_settings_are_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        load("pbt").validate(request(SPACE, **({"settings": SETTINGS} | more)))
    assert str(caught.value).startswith(text)


def test_numeric_parameters_need_a_step() -> None:
    with pytest.raises(InvalidSettingsError, match=r"Param: lr needs feasibleSpace\.step"):
        load("pbt").validate(request([double("lr", "0", "1")], settings=SETTINGS))


@both_modes("resample-probability-fails")
def test_a_resample_probability_is_a_text_to_katib(strict: bool) -> None:
    asked = request(SPACE, settings={**SETTINGS, "resample_probability": "0.3"}, strict=strict)
    if not strict:
        load("pbt").validate(asked)
        return
    with pytest.raises(InvalidSettingsError) as caught:
        load("pbt").validate(asked)
    text = "Exception calling application: '<=' not supported between instances of 'int' and 'str'"
    assert str(caught.value) == text


@both_modes("population-without-volume")
def test_katib_takes_a_population_without_a_volume(strict: bool) -> None:
    asked = request(SPACE, settings=SETTINGS, resume_policy="Never", strict=strict)
    if strict:
        load("pbt").validate(asked)
    else:
        with pytest.raises(InvalidSettingsError):
            load("pbt").validate(asked)
