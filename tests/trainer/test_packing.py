"""Rows are packed once for all runs that want the same, and resumed and verified like every entry of the cache."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import Dataset

from llmtune_trainer.cache import Cache
from llmtune_trainer.data.packing import packed
from llmtune_trainer.settings import Settings

ROWS = {"input_ids": [[1, 2, 3, 4], [5, 6], [7, 8, 9], [10]], "labels": [[-100, 2, 3, 4], [5, 6], [7, 8, 9], [10]]}


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was packed, by TRL itself."""
    calls: list[tuple[Any, ...]] = []
    real = trl.pack_dataset

    def count(rows: Any, *arguments: Any) -> Any:
        calls.append(arguments[:2])
        return real(rows, *arguments)

    monkeypatch.setattr(trl, "pack_dataset", count)
    return calls


def test_runs_that_share_a_cache_pack_once(train: Any, packings: list[Any], tmp_path: Path) -> None:
    def run(**others: Any) -> Any:
        done = train(packing="true", cache_dir=tmp_path / "cache", num_train_epochs=1, **others)
        assert done.code == 0, done.stderr
        return done

    first, second, other = run(), run(), run(learning_rate=1e-5)
    assert packings == [(1024, "bfd")]
    assert [run.stdout.count("cache: packed/") for run in (first, second, other)] == [1, 1, 1]
    assert " is made" in first.stdout
    assert " is made" not in second.stdout
    assert first.results == second.results
    run(packing_strategy="wrapped")
    run(max_length=512)
    assert packings == [(1024, "bfd"), (1024, "wrapped"), (512, "bfd")]
    run(packing_strategy="bfd")
    assert len(packings) == 3


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_dict({**ROWS, "length": [4, 2, 3, 1]})


def of(strategy: str) -> Settings:
    hyperparameters = {"packing": True, "packing_strategy": strategy}
    return Settings(model_name_or_path="-", dataset_name="-", max_length=4, hyperparameters=hyperparameters)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_packed_rows_are_what_the_library_makes_of_them(rows: Dataset, tmp_path: Path, strategy: str) -> None:
    with closing(Cache(tmp_path, print)) as cache:
        found = Dataset.from_file(str(packed(rows, {"of": 1}, of(strategy), cache)))
    assert found[:] == trl.pack_dataset(Dataset.from_dict(ROWS), 4, strategy)[:]


def test_what_a_dead_packer_left_is_not_taken_for_rows(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(rows: Any, length: int, strategy: str, options: dict[str, str]) -> None:
        file = Path(options["cache_file_name"])
        file.write_bytes(b"half")
        (file.parent / "tmp123").write_bytes(b"half")
        raise KeyboardInterrupt

    with closing(Cache(tmp_path, print)) as cache, monkeypatch.context() as patch:
        patch.setattr(trl, "pack_dataset", die)
        with pytest.raises(KeyboardInterrupt):
            packed(rows, {"of": 1}, of("bfd"), cache)
    with closing(Cache(tmp_path, print)) as cache:
        file = packed(rows, {"of": 1}, of("bfd"), cache)
        assert [entry.name for entry in file.parent.iterdir()] == [file.name]
        assert Dataset.from_file(str(file))["input_ids"][:] == [[1, 2, 3, 4], [7, 8, 9, 10], [5, 6]]


@pytest.mark.parametrize(
    ("key", "strategy", "version", "entries"),
    [("1", "bfd", "1", 1), ("2", "bfd", "1", 2), ("1", "wrapped", "1", 2), ("1", "bfd", "2", 2)],
)
def test_an_entry_is_of_its_rows_its_strategy_and_the_library(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, strategy: str, version: str, entries: int
) -> None:
    def pack(key: str, strategy: str, version: str) -> Path:
        monkeypatch.setattr("llmtune_trainer.data.packing.version", lambda _: version)
        with closing(Cache(tmp_path, print)) as cache:
            return packed(rows, {"of": key}, of(strategy), cache)

    assert len({pack("1", "bfd", "1"), pack(key, strategy, version)}) == entries
