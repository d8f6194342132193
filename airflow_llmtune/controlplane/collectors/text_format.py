"""Metric logs from lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from airflow_llmtune.controlplane.collectors.filters import Filter, find_all
from airflow_llmtune.controlplane.collectors.lines import Piece
from airflow_llmtune.controlplane.collectors.timestamps import line_time
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, MetricLog


def text_logs(pieces: Iterable[Piece], metrics: Sequence[str], patterns: Sequence[Filter]) -> Iterator[MetricLog]:
    """All matches of all filters whose name is wanted, from lines in which such a name occurs at all."""
    stamp, wanted = YEAR_ONE, frozenset(metrics)
    for piece in pieces:
        if piece.starts_line:
            stamp = line_time(piece.text)
        if any(metric in piece.text for metric in metrics):
            found = find_all(piece.text, patterns)
            yield from (MetricLog(stamp, name, value) for name, value in found if name in wanted)
