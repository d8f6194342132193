from __future__ import annotations

from benchmarks.retuning import Retuned, summary
from benchmarks.small_model import EVAL_ROWS, TRAIN_ROWS, dialogues, write_datasets


def test_a_tenth_of_each_split_is_replaced_by_rows_that_were_never_there(tmp_path):
    _, pairs = dialogues()
    before, after = write_datasets(pairs, tmp_path, seed=3)
    seen = {row for split in ("train", "eval") for row in _rows(before / f"{split}.jsonl")}
    for split, count in (("train", TRAIN_ROWS), ("eval", EVAL_ROWS)):
        old, new = _rows(before / f"{split}.jsonl"), _rows(after / f"{split}.jsonl")
        assert len(old) == len(new) == count
        assert len(new - old) == count / 10
        assert not (new - old) & seen


def test_rows_to_tune_on_are_not_pretrained_on():
    pretraining, tuning = dialogues()
    assert not set(pretraining) & set(tuning)
    assert len(tuning) == (TRAIN_ROWS + EVAL_ROWS) * 1.1


def test_the_same_seed_gives_the_same_rows(tmp_path):
    _, pairs = dialogues()
    first, second = (write_datasets(pairs, tmp_path / name, seed=1)[1] for name in ("a", "b"))
    assert (first / "train.jsonl").read_text() == (second / "train.jsonl").read_text()


def test_a_search_that_does_not_get_there_counts_with_all_its_trials_and_is_told():
    reached = Retuned(seed=0, champion=2.0, baseline=2.1, cold=8, warm=2, cold_best=2.05, warm_best=2.0)
    missed = Retuned(seed=1, champion=2.0, baseline=2.1, cold=24, warm=4, cold_best=2.2, warm_best=2.1)
    figures = summary([reached, missed], most=24)
    assert figures["warm_to_cold"] == round(6 / 32, 3)
    assert (figures["cold_not_reached"], figures["warm_not_reached"]) == (1, 0)
    assert (figures["cold_trials_mean"], figures["warm_trials_mean"]) == (16, 3)


def _rows(file):
    return set(file.read_text(encoding="utf-8").splitlines())
