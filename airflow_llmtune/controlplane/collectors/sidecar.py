"""The collectors as images that the kubelet serves: containers of a trial's pod.

They wait for the training, fail when it did not complete, and report once. The one for files shows the training's
output as its own log while it runs, and can stop it early. Exit codes are those of Katib's images.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.collectors.event_files import event_logs
from airflow_llmtune.controlplane.collectors.filters import FilterError
from airflow_llmtune.controlplane.collectors.flags import FlagError, Flags, parse_flags
from airflow_llmtune.controlplane.collectors.follower import Follower, LineSplitter
from airflow_llmtune.controlplane.collectors.json_format import FormatError
from airflow_llmtune.controlplane.collectors.observation_log import (
    compile_filters,
    json_file,
    reported,
    text_file,
)
from airflow_llmtune.controlplane.collectors.stop_rules import LineReader, NotANumberError, StopWatch
from airflow_llmtune.controlplane.collectors.training import (
    ManyChildrenError,
    check_only_child,
    has_completed,
    main_process,
    mark_early_stopped,
    terminate_children,
)
from airflow_llmtune.controlplane.db_manager import DBManager, MetricLog

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer, InProcessImage

FILE_IMAGE = "kubeflow/katib/file-metrics-collector"
EVENT_IMAGE = "kubeflow/katib/tfevent-metrics-collector"

SetTrialStatus = Callable[[str, str], None]
"""Marks a Trial, by its namespace and name, as stopped early."""

# Files have no wait call that is portable; a look costs one stat.
_TAIL_SECONDS = 0.05
_BATCH = 1000
_GO_FATAL, _PYTHON_FAILED, _BAD_FLAGS = 255, 1, 2

_COLLECT_ERRORS = (ApiError, FilterError, FormatError, ManyChildrenError, NotANumberError, OSError)


def collector_images(
    db_manager: DBManager, set_trial_status: SetTrialStatus, *, strict: bool = False
) -> dict[str, InProcessImage]:
    return {
        FILE_IMAGE: FileMetricsCollector(db_manager, set_trial_status, strict=strict),
        EVENT_IMAGE: EventMetricsCollector(db_manager, strict=strict),
    }


class FileMetricsCollector:
    """For StdOut and File."""

    def __init__(
        self,
        db_manager: DBManager,
        set_trial_status: SetTrialStatus,
        *,
        strict: bool = False,
        stop_seconds: float = 60.0,
    ) -> None:
        self._db_manager = db_manager
        self._set_trial_status = set_trial_status
        self._strict = strict
        self._stop_seconds = stop_seconds

    async def __call__(self, container: InProcessContainer) -> int:
        try:
            flags = parse_flags(container.args)
            is_stopped = await self._watch(container, flags)
            if is_stopped:
                return 0
            if not has_completed(flags.path.parent):
                _say(container, "Training container did not complete")
                return _GO_FATAL
            await self._report(flags)
        except FlagError as error:
            _say(container, str(error))
            return _BAD_FLAGS
        except _COLLECT_ERRORS as error:
            _say(container, f"Failed to collect metrics: {error}")
            return _GO_FATAL
        return 0

    async def _watch(self, container: InProcessContainer, flags: Flags) -> bool:
        """Copy what is written into the log until the training has ended; whether it was stopped early."""
        follower, lines = Follower(flags.path), LineSplitter()
        reader = self._line_reader(flags) if flags.stop_rules else None
        is_stopped = False
        while True:
            ended = _has_ended(container, flags, flags.path.parent)
            for chunk in follower.added():
                container.write_log(chunk)
                if reader is not None and await asyncio.to_thread(_any_stops, reader, lines, chunk):
                    reader, is_stopped = None, await self._stop(container, flags)
                await asyncio.sleep(0)
            if ended:
                return is_stopped
            await _wait(container, _TAIL_SECONDS)

    def _line_reader(self, flags: Flags) -> LineReader:
        watch = StopWatch(flags.stop_rules, flags.metrics[0], flags.objective_type)
        patterns = None if flags.format == "JSON" else compile_filters(flags.filters)
        return LineReader(watch, patterns, strict=self._strict)

    async def _stop(self, container: InProcessContainer, flags: Flags) -> bool:
        """False when the training has ended by itself in the meantime."""
        folder = flags.path.parent
        main = await main_process(container.root_pids(), folder)
        if main is None:
            return False
        _say(container, "Training container is early stopped")
        mark_early_stopped(main, folder)
        if self._strict:
            await check_only_child(main)
        if not await terminate_children(main, self._stop_seconds):
            _say(container, f"The training has not ended within {self._stop_seconds:g} seconds")
        # Not before it has ended: the last line would be torn, and what it says at its end be missing.
        await self._report(flags)
        self._set_trial_status(container.namespace, flags.trial)
        _say(container, "Trial status is successfully updated")
        return True

    async def _report(self, flags: Flags) -> None:
        await _report(self._db_manager, flags.trial, reported(partial(_file_logs, flags), flags.metrics[0]))


class EventMetricsCollector:
    """For TensorFlowEvent. It cannot stop a training early; upstream it does not even know the flag."""

    def __init__(self, db_manager: DBManager, *, strict: bool = False) -> None:
        self._db_manager = db_manager
        self._strict = strict

    async def __call__(self, container: InProcessContainer) -> int:
        try:
            flags = parse_flags(container.args)
        except FlagError as error:
            _say(container, str(error))
            return _BAD_FLAGS
        if flags.stop_rules:
            _say(container, "unrecognized arguments: -stop-rule")
            if self._strict:
                return _BAD_FLAGS
        while not _has_ended(container, flags, flags.path):
            await _wait(container, _TAIL_SECONDS)
        if not has_completed(flags.path):
            _say(container, "Training container did not complete")
            return _PYTHON_FAILED
        # The files are read twice; a warning is told once.
        read = partial(event_logs, flags.path, flags.metrics, cache(partial(_say, container)))
        await _report(self._db_manager, flags.trial, reported(read, flags.metrics[0]))
        return 0


def _any_stops(reader: LineReader, lines: LineSplitter, chunk: bytes) -> bool:
    return any(reader.read(line) for line in lines.feed(chunk))


def _has_ended(container: InProcessContainer, flags: Flags, folder: Path) -> bool:
    return container.others_ended.is_set() or (not flags.wait_all and has_completed(folder))


async def _wait(container: InProcessContainer, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await container.others_ended.wait()
    except TimeoutError:
        return


def _file_logs(flags: Flags) -> Iterator[MetricLog]:
    if flags.format == "JSON":
        return json_file(flags.path, flags.metrics)
    return text_file(flags.path, flags.metrics, flags.filters)


async def _report(db_manager: DBManager, trial: str, entries: Iterator[MetricLog]) -> None:
    """Read in a thread and hand over in batches: a long log would hold up the whole control plane."""
    while batch := await asyncio.to_thread(lambda: list(islice(entries, _BATCH))):
        db_manager.report_observation_log(trial, batch)


def _say(container: InProcessContainer, text: str) -> None:
    container.write_log(f"{text}\n".encode())
