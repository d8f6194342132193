"""Katib's file metrics collector: from lines of output to metric logs, and the sidecar that does it in a pod.

Serves the StdOut and File collectors. The sidecar shows the training's output as its own log while it runs and
reports once, when the training has ended; it fails when the training did not complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_llmtune.controlplane.db_manager import (
    UNAVAILABLE,
    YEAR_ONE,
    DBManager,
    MetricLog,
    parse_time,
)

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer

IMAGE = "kubeflow/katib/file-metrics-collector"
COMPLETED = "completed"
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"

# Files have no wait call that is portable; a look costs one stat.
_TAIL_SECONDS = 0.05
_NANOSECONDS = 1_000_000_000


class FormatError(Exception):
    """A line of the metrics file is not what its format demands."""


def parse_text(lines: Iterable[str], metrics: Sequence[str], filters: Sequence[str] = ()) -> list[MetricLog]:
    """All matches of all filters whose name is wanted; the objective is the first of ``metrics``.

    The value group may match nothing (``loss=nan``): the value is then empty, as Katib stores it. Word characters
    are ASCII in Go's expressions, hence the flag.
    """
    patterns = [re.compile(one, re.ASCII) for one in (filters or [DEFAULT_FILTER])]
    found: list[MetricLog] = []
    for line in lines:
        if not any(metric in line for metric in metrics):
            continue
        stamp = _line_time(line)
        for pattern in patterns:
            found += [
                MetricLog(stamp, name, value)
                for match in pattern.finditer(line)
                for name, value in [((match[1] or "").strip(), (match[2] or "").strip())]
                if name in metrics
            ]
    return with_objective(found, metrics)


def _line_time(line: str) -> str:
    token = line.strip().split(" ", 1)[0]
    try:
        parse_time(token)
    except ValueError:
        return YEAR_ONE
    return token


def parse_json(lines: Iterable[str], metrics: Sequence[str]) -> list[MetricLog]:
    """One object per line. As upstream, only values that are texts count."""
    found: list[MetricLog] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise FormatError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise FormatError(f"line {number} is no JSON object")
        stamp = _record_time(record.get("timestamp"), line)
        found += [
            MetricLog(stamp, metric, record[metric].strip())
            for metric in metrics
            if isinstance(record.get(metric), str)
        ]
    return with_objective(found, metrics)


def _record_time(value: Any, line: str) -> str:
    if isinstance(value, str):
        return _line_time(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds_time(line, value)
    return YEAR_ONE


def _seconds_time(line: str, value: float) -> str:
    """As upstream, the digits behind the point are a number of nanoseconds: ``.28721`` is 28721 ns."""
    digits = re.search(r'"timestamp"\s*:\s*-?\d+\.(\d+)', line)
    nanoseconds = int(digits[1]) % _NANOSECONDS if digits else 0
    moment = datetime.fromtimestamp(int(value), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def with_objective(found: list[MetricLog], metrics: Sequence[str]) -> list[MetricLog]:
    """Without any value of the objective nothing else is kept: one record says that it is unavailable."""
    if any(entry.name == metrics[0] for entry in found):
        return found
    return [MetricLog(YEAR_ONE, metrics[0], UNAVAILABLE)]


class _Flags(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process, which here is the control plane."""
        raise argparse.ArgumentError(None, message)


def parser() -> argparse.ArgumentParser:
    """The flags of the collector's image."""
    flags = _Flags(prog="file-metrics-collector", add_help=False, allow_abbrev=False)
    flags.add_argument("-t", dest="trial", required=True)
    flags.add_argument("-m", dest="metrics", required=True)
    flags.add_argument("-o-type", dest="objective_type")
    flags.add_argument("-s-db", dest="db_manager")
    flags.add_argument("-path", required=True)
    flags.add_argument("-f", dest="filters", default="")
    flags.add_argument("-format", default="TEXT", choices=["TEXT", "JSON"])
    return flags


class FileMetricsCollector:
    """The sidecar as an image that the kubelet serves inside the control plane."""

    def __init__(self, db_manager: DBManager) -> None:
        self._db_manager = db_manager

    async def __call__(self, container: InProcessContainer) -> int:
        try:
            flags = parser().parse_args(list(container.args))
        except argparse.ArgumentError as error:
            container.write_log(f"{error}\n".encode())
            return 2
        path = Path(flags.path)
        await _show(path, container)
        if not _has_completed(path.parent):
            container.write_log(b"Training container did not complete\n")
            return 1
        try:
            # In a thread: a long log would hold up the whole control plane.
            entries = await asyncio.to_thread(_read_metrics, path, flags)
        except (FormatError, OSError) as error:
            container.write_log(f"Failed to collect metrics: {error}\n".encode())
            return 1
        self._db_manager.report_observation_log(flags.trial, entries)
        return 0


async def _show(path: Path, container: InProcessContainer) -> None:
    """Copy what is appended to the file into the log, until the training has ended."""
    position = 0
    while True:
        ended = container.others_ended.is_set()
        position = _copy_from(path, position, container)
        if ended:
            return
        try:
            async with asyncio.timeout(_TAIL_SECONDS):
                await container.others_ended.wait()
        except TimeoutError:
            continue


def _copy_from(path: Path, position: int, container: InProcessContainer) -> int:
    try:
        size = path.stat().st_size
        if size == position:
            return position
        with path.open("rb") as file:
            file.seek(position if size > position else 0)  # Shorter: a restarted container began it anew.
            added = file.read()
            container.write_log(added)
            return file.tell()
    except FileNotFoundError:
        return position


def _has_completed(folder: Path) -> bool:
    return any(file.read_text().strip() == COMPLETED for file in folder.glob("*.pid"))


def _read_metrics(path: Path, flags: argparse.Namespace) -> list[MetricLog]:
    lines = path.read_text(errors="replace").splitlines()
    metrics = flags.metrics.split(";")
    if flags.format == "JSON":
        return parse_json(lines, metrics)
    return parse_text(lines, metrics, flags.filters.split(";") if flags.filters else ())
