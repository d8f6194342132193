"""What a collector reports of a whole metrics file, or of several, in Katib's terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from airflow_llmtune.controlplane.collectors.filters import DEFAULT_FILTER, Filter, compile_filter
from airflow_llmtune.controlplane.collectors.json_format import json_logs
from airflow_llmtune.controlplane.collectors.lines import pieces, whole_lines
from airflow_llmtune.controlplane.collectors.text_format import text_logs
from airflow_llmtune.controlplane.db_manager import UNAVAILABLE, YEAR_ONE, MetricLog

ReadLogs = Callable[[], Iterator[MetricLog]]
"""Begins to read anew at each call: a file is read twice rather than kept in memory."""


def reported(read: ReadLogs, objective: str) -> Iterator[MetricLog]:
    """Without any value of the objective nothing else is kept: one record says that it is unavailable."""
    if any(entry.name == objective for entry in read()):
        yield from read()
    else:
        yield MetricLog(YEAR_ONE, objective, UNAVAILABLE)


def text_file(path: Path, metrics: Sequence[str], filters: Sequence[str]) -> Iterator[MetricLog]:
    """Raises FilterError for a filter that RE2 refuses, such as one half of a filter with a semicolon in it."""
    patterns = compile_filters(filters)
    with path.open("rb") as file:
        yield from text_logs(pieces(file), metrics, patterns)


def json_file(path: Path, metrics: Sequence[str]) -> Iterator[MetricLog]:
    """Raises FormatError before the first record, so that a broken file reports nothing."""
    with path.open("rb") as file:
        for _ in json_logs(whole_lines(file), metrics):
            pass
        file.seek(0)
        yield from json_logs(whole_lines(file), metrics)


def compile_filters(filters: Iterable[str]) -> list[Filter]:
    return [compile_filter(one) for one in [*filters] or [DEFAULT_FILTER]]
