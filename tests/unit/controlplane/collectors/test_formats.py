from __future__ import annotations

import io
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.collectors.filters import FilterError, compile_filter
from airflow_llmtune.controlplane.collectors.json_format import FormatError
from airflow_llmtune.controlplane.collectors.lines import PIECE_BYTES, pieces
from airflow_llmtune.controlplane.collectors.observation_log import json_file, reported, text_file
from airflow_llmtune.controlplane.collectors.timestamps import json_time, line_time
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, MetricLog

STAMP = "2026-11-22T09:00:00.123456Z"
PYTHON_DICT = r"'([\w|-]+)'\s*:\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
Found = list[tuple[str, str, str]]


def read_text(tmp_path: Path, text: str, *filters: str, metrics: tuple[str, ...] = ("loss", "acc")) -> Found:
    path = tmp_path / "metrics.log"
    path.write_bytes(text.encode())
    return [(one.time_stamp, one.name, one.value) for one in text_file(path, metrics, filters)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{STAMP} loss=0.25", [(STAMP, "loss", "0.25")]),
        ("loss = 1.5e-3, acc=7", [(YEAR_ONE, "loss", "1.5e-3"), (YEAR_ONE, "acc", "7")]),
        ("epoch 1 loss=-2 and loss=+3", [(YEAR_ONE, "loss", "-2"), (YEAR_ONE, "loss", "+3")]),
        ("loss=nan", [(YEAR_ONE, "loss", "")]),
        ("loss=inf acc=.5", [(YEAR_ONE, "loss", ""), (YEAR_ONE, "acc", ".5")]),
        ("loss=1,000", [(YEAR_ONE, "loss", "1")]),
        ("train/loss=0.2", [(YEAR_ONE, "loss", "0.2")]),
        ("my_loss=0.2 loss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        ("loss=1acc=2", [(YEAR_ONE, "loss", "1"), (YEAR_ONE, "acc", "2")]),
        (f" {STAMP} loss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        (f"{STAMP}\tloss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        ("2026-11-22 09:00:00 loss=0.1", [(YEAR_ONE, "loss", "0.1")]),
        ("2026-11-22T09:00:00.123456789+01:00 loss=0.1", [("2026-11-22T09:00:00.123456789+01:00", "loss", "0.1")]),
        (" 1%|#   |\r 2%|##  | loss=0.3\r done", [(YEAR_ONE, "loss", "0.3")]),
        ("loss=0.1\u2028loss=0.2", [(YEAR_ONE, "loss", "0.1"), (YEAR_ONE, "loss", "0.2")]),
        ("nothing of interest=1", []),
    ],
)
def test_a_line_of_text_gives_katibs_records(tmp_path: Path, line: str, expected: Found) -> None:
    assert read_text(tmp_path, f"{line}\n") == expected


def test_all_filters_are_used_and_a_custom_one_reads_python_dicts(tmp_path: Path) -> None:
    line = "{'train_loss': 0.31, 'epoch': 2.0} train_loss is 0.4"
    found = read_text(tmp_path, line, PYTHON_DICT, r"(\w+) is (\S+)", metrics=("train_loss",))
    assert found == [(YEAR_ONE, "train_loss", "0.31"), (YEAR_ONE, "train_loss", "0.4")]


def test_half_a_filter_that_had_a_semicolon_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="missing closing"):
        read_text(tmp_path, "loss;1", r"(\w+", r")(\d+)")


def test_a_line_of_megabytes_is_read_in_pieces_and_keeps_its_time(tmp_path: Path) -> None:
    bars = "".join(f"{number:6d} loss=0.{number:06d}\r" for number in range(300_000))
    assert len(bars) > 5 * PIECE_BYTES
    found = read_text(tmp_path, f"{STAMP} {bars}\nloss=7\n")
    assert [value for _, _, value in found] == [f"0.{number:06d}" for number in range(300_000)] + ["7"]
    assert {stamp for stamp, _, _ in found[:-1]} == {STAMP}
    assert found[-1][0] == YEAR_ONE


def test_a_piece_is_never_larger_than_its_bound() -> None:
    read = list(pieces(io.BytesIO(b"x" * (3 * PIECE_BYTES) + b"\nend")))
    assert max(len(piece.text) for piece in read) <= 2 * PIECE_BYTES
    assert "".join(piece.text for piece in read) == "x" * (3 * PIECE_BYTES) + "end"
    assert [piece.text for piece in read if piece.starts_line][-1] == "end"


def read_json(tmp_path: Path, text: str) -> list[MetricLog]:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    return list(json_file(path, ["loss", "acc"]))


def test_json_lines_count_only_values_that_are_texts(tmp_path: Path) -> None:
    lines = [
        '{"loss": "0.5", "acc": 0.9, "timestamp": "2026-11-22T09:00:00Z"}',
        "",
        '{"loss": " 0.4", "timestamp": 1638422847.28721}',
        "null",
        '{"loss": "0.3"}',
    ]
    assert read_json(tmp_path, "\n".join(lines)) == [
        MetricLog("2026-11-22T09:00:00Z", "loss", "0.5"),
        MetricLog("2021-12-02T05:27:27.000028721Z", "loss", " 0.4"),
        MetricLog(YEAR_ONE, "loss", "0.3"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "loss=1",
        "[]",
        " ",
        '{"loss": NaN}',
        '{"loss": "1"',
        '"loss"',
        "[" * 100_000,
        '{"timestamp": 1e999}',
        f'{{"timestamp": 1{"0" * 400}}}',
    ],
    ids=lambda line: line[:18],
)
def test_one_line_that_is_no_json_object_fails_them_all(tmp_path: Path, line: str) -> None:
    with pytest.raises(FormatError, match="line 2"):
        read_json(tmp_path, f'{{"loss": "1"}}\n{line}\n')


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1638422847, "2021-12-02T05:27:27Z"),
        (1638422847.50, "2021-12-02T05:27:27.000000005Z"),
        (1.9999999999, "1970-01-01T00:00:10.999999999Z"),
        (1e300, YEAR_ONE),
        (True, YEAR_ONE),
        (None, YEAR_ONE),
        ("", YEAR_ONE),
        ("yesterday", YEAR_ONE),
        (STAMP, STAMP),
    ],
)
def test_a_json_time_is_text_or_seconds_with_a_number_of_nanoseconds(value: object, expected: str) -> None:
    assert json_time(value) == expected


@pytest.mark.parametrize(
    "word",
    [
        "2026-W47-7T09:00:00Z",
        "2026-11-22T09Z",
        "2026-11-22T09:00:00",
        "2026-13-22T09:00:00Z",
        "0001-01-01T00:00:00+01:00",
    ],
)
def test_what_go_takes_for_no_time_is_none(word: str) -> None:
    assert line_time(f"{word} loss=1") == YEAR_ONE


def test_without_the_objective_one_record_says_so_and_the_rest_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.log"
    path.write_text("acc=0.9\ndone\n")
    assert list(reported(lambda: text_file(path, ["loss", "acc"], ()), "loss")) == [
        MetricLog(YEAR_ONE, "loss", "unavailable")
    ]
    path.write_text("acc=0.9\nloss=1\n")
    assert [one.name for one in reported(lambda: text_file(path, ["loss", "acc"], ()), "loss")] == ["acc", "loss"]


def test_a_filter_is_compiled_once() -> None:
    assert compile_filter(PYTHON_DICT) is compile_filter(PYTHON_DICT)
