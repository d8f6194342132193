"""Metric logs from TensorBoard's event files.

A metric ``dir/tag`` stands for the tags that begin with ``tag`` in files whose folder ends in ``dir``; without a
slash the folder does not matter. Differs from Katib: tensors that are no single number are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.collectors.timestamps import wall_time
from airflow_llmtune.controlplane.db_manager import MetricLog


def event_logs(folder: Path, metrics: Sequence[str], warn: Callable[[str], None]) -> Iterator[MetricLog]:
    """Every file below the folder is tried; one that is no event file is passed over with a warning."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            yield from _file_logs(path, metrics)
        except Exception as error:  # noqa: BLE001  broken records and broken messages each have errors of their own
            warn(f"{path.name}: {error}")


def _file_logs(path: Path, metrics: Sequence[str]) -> Iterator[MetricLog]:
    # Imported here: it takes most of a second and is needed by this one collector.
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            wanted = [one for one in metrics if _matches(one, value.tag, path)]
            text = _scalar(value) if wanted else None
            if text is not None:
                stamp = wall_time(event.wall_time)
                yield from (MetricLog(stamp, one, text) for one in wanted)


def _matches(metric: str, tag: str, path: Path) -> bool:
    folder, _, beginning = metric.rpartition("/")
    return tag.startswith(beginning) and str(path.parent).endswith(folder)


def _scalar(value: Any) -> str | None:
    """TensorFlow 1 and PyTorch write ``simple_value``, TensorFlow 2 a tensor; any other kind of value is None."""
    if value.HasField("simple_value"):
        return str(value.simple_value)
    if not value.HasField("tensor"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(value.tensor)
    return str(array) if array.ndim == 0 and array.dtype.kind in "fiu" else None
