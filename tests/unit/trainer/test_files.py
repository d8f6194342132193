from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmtune_trainer.data import files as module
from llmtune_trainer.data.files import Raw, class_names, find_splits, read_rows
from llmtune_trainer.errors import BadInputError

Row = dict[str, Any]
ROWS = [{"prompt": f'question "{number}",\n', "completion": f"answer {number} é"} for number in range(40)]


def write(file: Path, rows: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def _jsonl(file: Path, rows: list[Row]) -> None:
    write(file, rows)


def _json(file: Path, rows: list[Row]) -> None:
    file.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def _csv(file: Path, rows: list[Row]) -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as content:
        writer = csv.DictWriter(content, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _zipped(plain: Callable[[Path, list[Row]], None]) -> Callable[[Path, list[Row]], None]:
    def write_zipped(file: Path, rows: list[Row]) -> None:
        plain(file, rows)
        file.write_bytes(gzip.compress(file.read_bytes()))

    return write_zipped


def _parquet(file: Path, rows: list[Row]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=7)


def _large_parquet(file: Path, rows: list[Row]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=1000)


def _arrow_file(file: Path, rows: list[Row]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _arrow_stream(file: Path, rows: list[Row]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _saved(folder: Path, rows: list[Row]) -> None:
    Dataset.from_list(rows).save_to_disk(str(folder))


WRITERS = [
    ("a.jsonl", _jsonl),
    ("lines.json", _jsonl),
    ("array.json", _json),
    ("a.csv", _csv),
    ("a.jsonl.gz", _zipped(_jsonl)),
    ("lines.json.gz", _zipped(_jsonl)),
    ("array.json.gz", _zipped(_json)),
    ("a.csv.gz", _zipped(_csv)),
    ("a.parquet", _parquet),
    ("file.arrow", _arrow_file),
    ("stream.arrow", _arrow_stream),
    ("saved", _saved),
]


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "write_file"), WRITERS, ids=[name for name, _ in WRITERS])
def test_every_kind_of_file_gives_the_same_rows(
    tmp_path: Path, name: str, write_file: Callable[[Path, list[Row]], None]
) -> None:
    write_file(tmp_path / name, ROWS)
    found = list(read_rows([tmp_path / name]))
    assert [raw.row for raw in found] == ROWS
    assert [raw.problem for raw in found] == [None] * len(ROWS)
    assert {raw.place.split(",")[0] for raw in found} == {name}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
json_rows = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(
    st.lists(json_rows | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=8),
    st.integers(2, 30),  # the first two characters tell an array from lines
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_an_array_reads_the_same_whatever_part_of_it_is_in_memory(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    file = tmp_path_factory.mktemp("array") / "a.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    file.write_text(f" {text}\n", encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        assert [raw.row for raw in read_rows([file])] == rows


@pytest.mark.parametrize(
    ("name", "write_file"), [("a.jsonl", _jsonl), ("a.json", _json), ("a.csv", _csv), ("a.parquet", _large_parquet)]
)
def test_a_large_file_is_not_held_in_memory(
    tmp_path: Path, name: str, write_file: Callable[[Path, list[Row]], None]
) -> None:
    rows = [{"text": f"{number} " + "word " * 200} for number in range(20_000)]
    write_file(tmp_path / name, rows)
    del rows
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    arrow = [pyarrow.total_allocated_bytes() - before for _ in read_rows([tmp_path / name])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(arrow) == 20_000
    assert peak + max(arrow) < 12e6  # of 20


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        (
            "a.jsonl",
            '{"text": "a"}\n\n{"text": \n{"text": "b"}',
            {"a.jsonl, line 3": "is no valid JSON (Expecting value"},
        ),
        ("a.json", '{"text": "a"}\n}\n', {"a.json, line 2": "is no valid JSON"}),
        ("a.jsonl", b'{"text": "\xe9"}\n{"text": "\xc3\xa9"}', {"a.jsonl, line 1": "is not UTF-8 (byte 10)"}),
        ("a.jsonl", "[" * 100_000, {"a.jsonl, line 1": "is no valid JSON (nested too deeply"}),
        (
            "a.csv",
            "prompt,completion\na,b\na,b,c\n",
            {"a.csv, row 2": "has more columns than the heading (prompt, completion; "},
        ),
    ],
)
def test_a_row_that_cannot_be_read_does_not_end_the_reading(
    tmp_path: Path, name: str, content: str | bytes, problems: dict[str, str]
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = list(read_rows([tmp_path / name]))
    told = {raw.place: raw.problem for raw in found if raw.problem}
    assert told.keys() == problems.keys()
    assert all((told[place] or "").startswith(words) for place, words in problems.items())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '[{"text": "a"},]', "a.json is no valid JSON: Expecting value in row 2"),
        ("a.json", '[{"text": "a"} {"text": "b"}]', "a.json is no valid JSON: Expecting ',' or ']' after row 1"),
        ("a.json", '[{"text": "a"}', "a.json is no valid JSON: Expecting ',' or ']' after row 1"),
        ("a.json", '[{"text": "a', "a.json is no valid JSON: Unterminated string"),
        ("a.json", b'["\xe9"]', "is not UTF-8"),
        ("a.csv", b"text\n\xe9\n", "is not UTF-8"),
        ("a.parquet", "nonsense", "a.parquet is no readable parquet file"),
        ("a.arrow", "nonsense", "a.arrow is no readable arrow file"),
        ("a.arrow", "", "a.arrow is no readable arrow file"),
        ("a.jsonl.gz", "nonsense", "a.jsonl.gz cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "a.jsonl.gz cannot be read: Compressed file ended"),
        ("a.txt", "hello", r"no data file that can be read. Fix: give a .jsonl, "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInputError) as raised:
        list(read_rows([tmp_path / name]))
    assert words in str(raised.value)
    assert "Fix: " in str(raised.value)


@pytest.mark.parametrize("lost", ["state.json", "data-00000-of-00001.arrow"])
def test_a_damaged_save_to_disk_tree_is_named(tmp_path: Path, lost: str) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "tree"))
    (tmp_path / "tree" / "train" / lost).unlink()
    with pytest.raises(BadInputError, match=r"train is no readable save_to_disk tree"):
        list(read_rows(find_splits(tmp_path / "tree")["train"]))


def test_the_classes_of_a_column_are_read_by_their_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    labelled = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    labelled.save_to_disk(str(tmp_path / "saved"))
    labelled.to_parquet(str(tmp_path / "a.parquet"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for file in (tmp_path / "saved", tmp_path / "a.parquet", arrow):
        assert [raw.row["label"] for raw in read_rows([file])] == ["good", "bad", None]
        assert class_names(file) == {"label": ["bad", "good"]}
    assert class_names(write(tmp_path / "a.jsonl", ROWS)) == {}


# --- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.jsonl", "eval.jsonl"], {"train": 1, "eval": 1}),
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.json"], {"train": 2, "test": 1}),
        (["train/a.jsonl", "train/b.jsonl", "validation/a.jsonl"], {"train": 2, "validation": 1}),
        (["data/train_sft-00000-of-00001.jsonl", "data/test.jsonl"], {"train_sft": 1, "test": 1}),
        (["train.jsonl.gz", "test.csv.gz"], {"train": 1, "test": 1}),
        (["train-0001.arrow", "train-0002.arrow", "dev.arrow"], {"train": 2, "dev": 1}),
        (["whatever.jsonl"], {"train": 1}),
        (["train.jsonl", ".hidden.jsonl", ".cache/train.jsonl", "README.md", "dataset_infos.json"], {"train": 1}),
    ],
)
def test_files_and_folders_name_the_splits(tmp_path: Path, names: list[str], splits: dict[str, int]) -> None:
    for name in names:
        write(tmp_path / name, ROWS)
    assert {name: len(found) for name, found in find_splits(tmp_path).items()} == splits


def test_trees_of_save_to_disk_are_splits_as_they_are_named(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows, "held": rows}).save_to_disk(str(tmp_path / "dict"))
    rows.save_to_disk(str(tmp_path / "beside" / "train"))
    rows.save_to_disk(str(tmp_path / "beside" / "eval"), num_shards=2)
    rows.save_to_disk(str(tmp_path / "one"))
    assert find_splits(tmp_path / "dict").keys() == {"train", "held"}
    assert find_splits(tmp_path / "beside").keys() == {"train", "eval"}
    assert find_splits(tmp_path / "one").keys() == {"train"}
    assert [raw.row for raw in read_rows(find_splits(tmp_path / "beside")["eval"])] == ROWS


CONFIGURATIONS = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/part-*
  - split: test
    path: [main/held.jsonl, ../outside.jsonl]
- config_name: other
  data_files: other/*.jsonl
- config_name: third
  data_dir: third
---
# A data set
"""


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    for name in ("main/part-1", "main/part-2", "main/held", "other/train", "other/dev", "third/a"):
        write(tmp_path / "data" / f"{name}.jsonl", ROWS)
    write(tmp_path / "outside.jsonl", ROWS)
    (tmp_path / "data" / "README.md").write_text(CONFIGURATIONS, encoding="utf-8")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("config", "splits"),
    [
        ("main", {"train": ["main/part-1.jsonl", "main/part-2.jsonl"], "test": ["main/held.jsonl"]}),
        ("other", {"dev": ["other/dev.jsonl"], "train": ["other/train.jsonl"]}),
        ("third", {"train": ["third/a.jsonl"]}),
    ],
)
def test_a_configuration_of_the_hub_has_its_own_splits(
    configured: Path, config: str, splits: dict[str, list[str]]
) -> None:
    found = find_splits(configured, config)
    assert {name: [str(file.relative_to(configured)) for file in files] for name, files in found.items()} == splits


@pytest.mark.parametrize(
    "mark",
    ["- config_name: default\n  data_files: other/*", "- config_name: x\n  default: true\n  data_files: other/*"],
)
def test_the_default_configuration_is_taken(configured: Path, mark: str) -> None:
    readme = configured / "README.md"
    readme.write_text(CONFIGURATIONS.replace("configs:", f"configs:\n{mark}"), encoding="utf-8")
    assert find_splits(configured).keys() == {"train", "dev"}


@pytest.mark.parametrize(
    ("config", "head", "words"),
    [
        (None, CONFIGURATIONS, r"has several configurations: main, other, third\. Fix: .* --dataset_config main"),
        ("mian", CONFIGURATIONS, r"`--dataset_config`='mian' is no configuration .* are: main, other, third\. Fix"),
        ("main", "# no head", r"`--dataset_config`='main' .* are: none\. Fix"),
        (None, "---\nconfigs: [\n---\n", r"The head of the README\.md of .* cannot be read: .* Fix"),
        (None, "---\nconfigs: [main]\n---\n", r"The head of the README\.md of .* cannot be read: .* Fix"),
    ],
)
def test_a_configuration_that_is_not_clear_is_told(configured: Path, config: str | None, head: str, words: str) -> None:
    (configured / "README.md").write_text(head, encoding="utf-8")
    with pytest.raises(BadInputError, match=words):
        find_splits(configured, config)


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no data file.*train\.jsonl and eval\.jsonl"):
        find_splits(tmp_path)


def test_rows_say_where_they_stand(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "a"}, ["b"]])
    assert list(read_rows([file, file]))[2:] == [Raw("a.jsonl, line 1", {"text": "a"}), Raw("a.jsonl, line 2", ["b"])]
