from __future__ import annotations

import re
from typing import Any

import pytest
from datasets import ReadInstruction
from hypothesis import given
from hypothesis import strategies as st

from llmtune_trainer.data.splits import Choice, Part, choose_parts, disjoint, hold_out, within_limits
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings, parse_settings

SPLITS = ("train", "test")


def settings_of(**given: Any) -> Settings:
    values = {"model_name_or_path": "m", "dataset_name": "data", **given}
    return parse_settings([f"--{name}={value}" for name, value in values.items()], {})


def part_of(text: str) -> Part:
    return choose_parts(SPLITS, settings_of(dataset_train_split=text))[0]


# --- parts of a split ---------------------------------------------------------------------------------------


bounds = st.none() | st.integers(-150, 150)


@given(start=bounds, stop=bounds, percent=st.booleans(), count=st.integers(0, 130))
def test_a_part_holds_the_rows_that_datasets_would_take(
    start: int | None, stop: int | None, percent: bool, count: int
) -> None:
    if percent:
        start, stop = (bound if bound is None else max(-100, min(100, bound)) for bound in (start, stop))
    unit = "%" if percent else ""
    text = f"train[{'' if start is None else f'{start}{unit}'}:{'' if stop is None else f'{stop}{unit}'}]"
    theirs = ReadInstruction.from_spec(text).to_absolute({"train": count})[0]
    assert list(part_of(text).range_of(count)) == list(range(theirs.from_, theirs.to))


@given(start=bounds, stop=bounds, percent=st.booleans(), count=st.integers(0, 130))
def test_no_row_behind_the_last_needed_one_is_in_a_part(
    start: int | None, stop: int | None, percent: bool, count: int
) -> None:
    part = Part("train", start, stop, percent)
    if (needed := part.last_needed) is not None:
        assert list(part.range_of(min(count, needed))) == list(part.range_of(count))


def test_only_rows_counted_from_the_front_spare_the_reading_of_the_rest() -> None:
    assert part_of("train[:1000]").last_needed == 1000
    assert part_of("train[10:1000]").last_needed == 1000
    assert {part_of(f"train{text}").last_needed for text in ("", "[:]", "[10:]", "[:-1]", "[-5:9]", "[:10%]")} == {None}


@pytest.mark.parametrize("text", ["train[5%:10]", "train[5:10%]"])
def test_rows_and_percent_do_not_mix(text: str) -> None:
    with pytest.raises(
        BadInputError, match=rf"`--dataset_train_split`={re.escape(repr(text))} has one bound in percent"
    ):
        part_of(text)


def test_a_part_of_a_missing_split_names_those_there_are() -> None:
    with pytest.raises(
        BadInputError, match=r"`--dataset_train_split`='dev\[:5\]' is no split of data, which has test, train"
    ):
        part_of("dev[:5]")


# --- which splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["validation", "eval", "test", "valid", "val", "dev", "evaluation"])
def test_a_usual_evaluation_split_is_found_by_its_name(name: str) -> None:
    assert choose_parts(("train", "more", name), settings_of()) == (Part("train"), Part(name))


def test_of_several_usual_ones_the_validation_split_is_taken() -> None:
    assert choose_parts(("test", "train", "validation"), settings_of())[1] == Part("validation")


def test_rows_are_held_out_where_it_is_asked_or_no_other_split_is() -> None:
    assert choose_parts(("train", "test"), settings_of(eval_fraction=0.5))[1] is None
    assert choose_parts(("train",), settings_of())[1] is None
    assert choose_parts(("test",), settings_of(dataset_train_split="test")) == (Part("test"), None)
    assert choose_parts(("test",), settings_of(dataset_train_split="test[:5]"))[1] is None


def test_a_missing_split_names_those_there_are() -> None:
    with pytest.raises(
        BadInputError, match=r"--dataset_test_split`='eval' is no split .* has holdout, train\. Fix: .*--eval_fraction"
    ):
        choose_parts(("train", "holdout"), settings_of(dataset_test_split="eval"))


def test_two_parts_of_one_split_must_not_share_rows() -> None:
    disjoint(Part("train", None, 90, in_percent=True), Part("train", 90, None, in_percent=True), 1003)
    disjoint(Part("train"), Part("test"), 10)
    disjoint(Part("train", None, 5), Part("train", 5, 5), 10)
    with pytest.raises(BadInputError, match=r"'train\[:91%\]' and .*'train\[90%:\]' share 10 rows"):
        disjoint(Part("train", None, 91, in_percent=True), Part("train", 90, None, in_percent=True), 1003)


# --- which rows ---------------------------------------------------------------------------------------------


def choice_of(identities: list[int], **given: Any) -> Choice:
    settings = settings_of(**given)
    rows = [10 * index for index in range(len(identities))]
    return within_limits(*hold_out(rows, identities, settings), settings)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0.05, 0.6), st.integers(0, 5))
def test_no_row_is_on_both_sides_even_where_the_data_repeats_it(
    identities: list[int], fraction: float, seed: int
) -> None:
    try:
        train, held_out = choice_of(identities, eval_fraction=fraction, split_seed=seed)
    except BadInputError as error:
        assert "none is left to train on" in str(error)  # noqa: PT017
        return
    sides = [{identities[row // 10] for row in rows} for rows in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(held_out) == max(1, round(fraction * len(identities)))
    # Whatever is not held out, and does not equal what is, is trained on, in the order of the data.
    assert list(train) == [10 * index for index, identity in enumerate(identities) if identity not in sides[1]]
    assert list(held_out) == sorted(held_out)


@given(st.integers(2, 80), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 90))
def test_a_smaller_share_is_a_part_of_a_larger_one_and_changes_nothing_that_is_evaluated(
    count: int, one: float, other: float, limit: int
) -> None:
    less, more = (
        choice_of(list(range(count)), eval_fraction=0.25, train_fraction=share) for share in sorted((one, other))
    )
    limited = choice_of(list(range(count)), eval_fraction=0.25, train_fraction=max(one, other), max_train_samples=limit)
    assert less.eval == more.eval == limited.eval
    assert set(less.train) <= set(more.train)
    assert set(limited.train) <= set(more.train)
    assert len(limited.train) == min(limit, len(more.train))


def test_the_same_rows_are_chosen_as_ever() -> None:
    """Losses of earlier runs compare only with losses over the same rows."""
    train, held_out = choice_of(list(range(20)), eval_fraction=0.25, max_train_samples=5)
    assert list(held_out) == [40, 50, 90, 140, 190]
    assert list(train) == [80, 100, 110, 170, 180]


def test_the_split_depends_on_split_seed_and_not_on_seed() -> None:
    rows = list(range(40))
    assert choice_of(rows, seed=1).eval == choice_of(rows, seed=2).eval
    assert choice_of(rows, split_seed=1).eval != choice_of(rows, split_seed=2).eval


def test_fewer_evaluation_rows_are_a_part_of_more() -> None:
    rows = list(range(40))
    everything = choice_of(rows, eval_fraction=0.5).eval
    some, fewer = (choice_of(rows, eval_fraction=0.5, max_eval_samples=limit).eval for limit in (10, 4))
    assert (len(everything), len(some), len(fewer)) == (20, 10, 4)
    assert set(fewer) < set(some) < set(everything)


def test_too_few_rows_to_hold_any_out_are_refused() -> None:
    with pytest.raises(BadInputError, match="Of the 1 rows of data none is left to train on"):
        choice_of([7])
