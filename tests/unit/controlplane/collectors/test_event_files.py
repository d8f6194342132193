from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from airflow_llmtune.controlplane.collectors.event_files import event_logs

WALL_TIME = 1_795_338_000.75  # 2026-11-22T09:00:00.75Z
STAMP = "2026-11-22T09:00:00Z"


def write(folder: Path, *values: Summary.Value) -> None:
    """One event for each value, a second apart."""
    writer = EventFileWriter(str(folder))
    for step, value in enumerate(values):
        writer.add_event(Event(wall_time=WALL_TIME + step, step=step, summary=Summary(value=[value])))
    writer.close()


def simple(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=value)


def tensor(tag: str, value: Any) -> Summary.Value:
    return Summary.Value(tag=tag, tensor=make_tensor_proto(value))


def read(folder: Path, *metrics: str) -> list[tuple[str, str, str]]:
    warnings: list[str] = []
    found = [(one.time_stamp, one.name, one.value) for one in event_logs(folder, metrics, warnings.append)]
    assert warnings == []
    return found


def test_scalars_of_tensorflow_1_and_2_are_read_with_their_wall_time(tmp_path: Path) -> None:
    write(tmp_path, simple("loss", 0.5), tensor("loss", np.float32(0.1)), tensor("loss", np.int64(3)))
    assert read(tmp_path, "loss") == [
        (STAMP, "loss", "0.5"),
        ("2026-11-22T09:00:01Z", "loss", "0.1"),
        ("2026-11-22T09:00:02Z", "loss", "3"),
    ]


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("accuracy", ["0.5", "0.25"]),
        ("acc", ["0.5", "0.25"]),
        ("test/accuracy", ["0.5"]),
        ("run/train/accuracy", ["0.25"]),
        ("st/acc", ["0.5"]),
        ("other/accuracy", []),
        ("curacy", []),
    ],
)
def test_a_metric_is_the_beginning_of_a_tag_and_the_end_of_a_folder(
    tmp_path: Path, metric: str, values: list[str]
) -> None:
    write(tmp_path / "run" / "test", simple("accuracy_1", 0.5))
    write(tmp_path / "run" / "train", simple("accuracy_1", 0.25))
    assert [value for _, _, value in read(tmp_path, metric)] == values


def test_what_is_no_number_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, tensor("loss", np.array([1.0, 2.0])), tensor("loss", b"text"), Summary.Value(tag="loss"))
    assert read(tmp_path, "loss") == []


def test_a_broken_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a-note.txt").write_bytes(b"not an event file, but long enough to have a head" * 3)
    write(tmp_path, simple("loss", 2))
    warnings: list[str] = []
    assert [one.value for one in event_logs(tmp_path, ["loss"], warnings.append)] == ["2.0"]
    assert all(warning.startswith("a-note.txt: ") for warning in warnings)


def test_a_folder_that_is_not_there_has_no_events(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere", "loss") == []
