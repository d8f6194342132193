"""``pods/<name>/log``: what may be asked for, and where the API server gets the output of containers from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from airflow_llmtune.controlplane.apiserver.errors import (
    Cause,
    bad_request,
    forbidden_value,
    invalid,
    invalid_value,
)
from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.apiserver.targets import flag, integer

_OPTIONS = Kind("", "v1", "PodLogOptions", "podlogoptions", "podlogoptions")
_POSITIVE = "must be greater than 0"
_NOT_NEGATIVE = "must be greater than or equal to 0"


@dataclass(frozen=True)
class LogOptions:
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None


class PodLogs(Protocol):
    """Who keeps the output of the containers: the kubelet."""

    def open_log(self, namespace: str, pod_name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Raises ApiError at once, not in the stream, for a log that there is not. An empty name: the only one."""


def read_options(query: Mapping[str, str], pod_name: str, now: datetime) -> LogOptions:
    """Raises 422 for values that make no sense, in a real server's words."""
    tail_lines, limit_bytes, seconds = (integer(query, name) for name in ("tailLines", "limitBytes", "sinceSeconds"))
    moment = _moment(query.get("sinceTime", ""))
    causes: list[Cause] = []
    if tail_lines is not None and tail_lines < 0:
        causes.append(invalid_value("tailLines", tail_lines, _NOT_NEGATIVE))
    if limit_bytes is not None and limit_bytes < 1:
        causes.append(invalid_value("limitBytes", limit_bytes, _POSITIVE))
    if seconds is not None and moment is not None:
        causes.append(forbidden_value("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif seconds is not None and seconds < 1:
        causes.append(invalid_value("sinceSeconds", seconds, _POSITIVE))
    if causes:
        raise invalid(_OPTIONS, pod_name, causes)
    return LogOptions(
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
        tail_lines=tail_lines,
        limit_bytes=limit_bytes,
        since=moment if seconds is None else now - timedelta(seconds=seconds),
    )


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it') from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
