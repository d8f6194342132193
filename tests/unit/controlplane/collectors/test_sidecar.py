"""The collectors' sidecars beside real processes that run wrapped commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.admission.wrapped_command import wrap_command
from airflow_llmtune.controlplane.collectors.sidecar import (
    EVENT_IMAGE,
    FILE_IMAGE,
    FileMetricsCollector,
    collector_images,
)
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, DBManager, MetricLog
from airflow_llmtune.controlplane.kubelet.environment import expand
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer
from both_modes import both_modes
from waiting import eventually

RULE = "loss;0.5;greater;2"
MakePod = Callable[..., "Pod"]


class Pod:
    """A wrapped script and the sidecar that watches it."""

    def __init__(
        self, folder: Path, *, strict: bool = False, image: str = FILE_IMAGE, stop_seconds: float = 60
    ) -> None:
        self.db_manager = DBManager()
        self.stopped: list[tuple[str, str]] = []
        self.shown = bytearray()
        self._folder = folder
        self._ended = asyncio.Event()
        self._processes: list[asyncio.subprocess.Process] = []
        if image == FILE_IMAGE:
            tell = self._tell
            self._sidecar: Any = FileMetricsCollector(self.db_manager, tell, strict=strict, stop_seconds=stop_seconds)
        else:
            self._sidecar = collector_images(self.db_manager, self._tell, strict=strict)[image]

    def _tell(self, namespace: str, name: str) -> None:
        self.stopped.append((namespace, name))

    async def run(self, script: str, *flags: str, path: str = "metrics.log", metrics: str = "loss;acc") -> int:
        """The sidecar's exit code; ``exit_code`` is the training's."""
        place = self._folder / path
        folder = place.parent if path else self._folder
        container: dict[str, Any] = {"command": ["bash", "-c", script]}
        wrap_command(container, str(folder), output=str(place) if path else None, can_stop=True)
        words = [expand(word, {}) for word in [*container["command"], *container["args"]]]
        process = await asyncio.create_subprocess_exec(
            *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._processes.append(process)
        args = ("-t", "trial", "-m", metrics, "-o-type", "minimize", "-s-db", "db:6789", "-path", str(place), *flags)
        sidecar = InProcessContainer(
            args, {}, self.shown.extend, self._ended, lambda: self._running(process), namespace="ns"
        )
        running = asyncio.ensure_future(self._sidecar(sidecar))
        try:
            self.exit_code = await process.wait()
            self._ended.set()
            return int(await running)
        finally:
            running.cancel()

    def _running(self, process: asyncio.subprocess.Process) -> list[int]:
        return [process.pid] if process.returncode is None else []

    def reported(self) -> list[str]:
        return [f"{one.name}={one.value}" for one in self.db_manager.get_observation_log("trial")]

    def kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
async def make_pod() -> AsyncIterator[MakePod]:
    made: list[Pod] = []

    def make(folder: Path, **settings: Any) -> Pod:
        folder.mkdir(exist_ok=True)
        made.append(Pod(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def pod(make_pod: MakePod, tmp_path: Path) -> Pod:
    return make_pod(tmp_path)


async def test_the_output_is_shown_and_reported_when_the_training_has_ended(pod: Pod) -> None:
    assert await pod.run("echo epoch 1; { echo loss=0.5; echo acc=1; }") == 0
    assert bytes(pod.shown) == b"loss=0.5\nacc=1\n"  # The redirect is the last command's alone.
    assert pod.reported() == ["loss=0.5", "acc=1"]
    assert pod.exit_code == 0


async def test_the_output_is_shown_while_it_is_written(pod: Pod) -> None:
    running = asyncio.create_task(pod.run("{ echo loss=0.5; sleep 1; echo loss=0.4; }"))
    await eventually(lambda: pod.shown == b"loss=0.5\n")
    assert await running == 0
    assert pod.reported() == ["loss=0.5", "loss=0.4"]


@pytest.mark.parametrize(
    "script", ["{ echo loss=0.5; exit 3; }", "(echo loss=0.5; exit 3)", "(echo loss=1; kill -9 $$)"]
)
async def test_it_fails_and_reports_nothing_when_the_training_did_not_complete(pod: Pod, script: str) -> None:
    assert await pod.run(script) == 255
    assert pod.exit_code != 0
    assert pod.reported() == []
    assert pod.shown.endswith(b"Training container did not complete\n")


async def test_json_files_are_read_and_a_broken_one_fails(make_pod: MakePod, tmp_path: Path, pod: Pod) -> None:
    assert await pod.run("""{ echo '{"loss": "0.5"}'; }""", "-format", "JSON") == 0
    assert pod.reported() == ["loss=0.5"]
    other = make_pod(tmp_path / "other")
    assert await other.run("""{ echo '{"loss": "0.5"}'; echo loss=1; }""", "-format", "JSON") == 255
    assert other.reported() == []
    assert b"Failed to collect metrics: line 2 is not JSON" in other.shown


async def test_a_filter_that_fell_apart_at_a_semicolon_fails_the_sidecar(pod: Pod) -> None:
    assert await pod.run("echo loss=1", "-f", r"(\w+;)=(\d+)") == 255
    assert b"error parsing regexp: missing closing )" in pod.shown


async def test_a_file_that_never_came_fails_the_sidecar(pod: Pod) -> None:
    assert await pod.run("true", path="sub/metrics.log") == 255


async def test_it_explains_a_flag_it_does_not_know(pod: Pod) -> None:
    assert await pod.run("true", "-unknown", "1") == 2
    assert b"flag provided but not defined: -unknown" in pod.shown


@pytest.mark.parametrize(
    "script",
    [
        "bash -c 'echo loss=0.9; echo acc=1; echo loss=0.8; sleep 60; echo loss=0.1'",
        "{ echo loss=0.9; echo acc=1; echo loss=0.8; sleep 60; }",
        "{ nap=0.1; for v in 0.9 0.8 0.7 0.6; do echo loss=$v; echo acc=1; sleep $nap; nap=60; done; }",
    ],
    ids=["one child", "the shell itself", "loop"],
)
async def test_a_training_is_stopped_when_its_rules_are_met(pod: Pod, script: str) -> None:
    start = time.monotonic()
    assert await pod.run(script, "-stop-rule", RULE) == 0
    assert time.monotonic() - start < 30
    assert pod.exit_code == 0, "the wrapped command takes an early stop for success"
    assert pod.stopped == [("ns", "trial")]
    assert pod.reported()[:1] == ["loss=0.9"]
    assert "loss=0.1" not in pod.reported()
    assert b"Training container is early stopped\n" in pod.shown


async def test_what_a_training_says_while_it_is_stopped_is_reported(pod: Pod) -> None:
    script = "bash -c 'trap \"echo acc=7; exit 1\" TERM; echo loss=0.9; echo loss=0.8; sleep 60 & wait'"
    assert await pod.run(script, "-stop-rule", RULE) == 0
    assert pod.reported() == ["loss=0.9", "loss=0.8", "acc=7"]


@both_modes("early-stopping-needs-one-child")
async def test_a_training_of_several_processes_is_stopped(make_pod: MakePod, tmp_path: Path, strict: bool) -> None:
    pod = make_pod(tmp_path, strict=strict)
    script = "(echo loss=0.9; echo loss=0.8; sleep 1) | cat"
    assert await pod.run(script, "-stop-rule", RULE) == (255 if strict else 0)
    assert pod.stopped == ([] if strict else [("ns", "trial")])
    assert (b"Multiple children processes are not supported" in pod.shown) == strict


async def test_a_training_that_meets_no_rule_completes(pod: Pod) -> None:
    assert await pod.run("{ echo loss=0.9; sleep 0.3; echo loss=0.4; sleep 0.3; }", "-stop-rule", RULE) == 0
    assert pod.stopped == []
    assert pod.reported() == ["loss=0.9", "loss=0.4"]


async def test_a_training_that_does_not_stop_in_time_is_told_of_and_waited_for(
    make_pod: MakePod, tmp_path: Path
) -> None:
    pod = make_pod(tmp_path, stop_seconds=0.3)
    deaf = "trap '' TERM; echo loss=0.9; echo loss=0.8; sleep 1.5 & wait; wait"
    assert await pod.run(f'bash -c "{deaf}"', "-stop-rule", RULE) == 0
    assert b"The training has not ended within 0.3 seconds\n" in pod.shown
    assert pod.stopped == [("ns", "trial")]


@both_modes("early-stopping-needs-numbers")
async def test_a_value_that_is_no_number_beside_stop_rules(make_pod: MakePod, tmp_path: Path, strict: bool) -> None:
    pod = make_pod(tmp_path, strict=strict)
    code = await pod.run("{ echo loss=nan; echo loss=0.4; sleep 0.3; }", "-stop-rule", RULE)
    assert (code, pod.reported()) == ((255, []) if strict else (0, ["loss=", "loss=0.4"]))


async def test_with_w_false_the_end_of_the_training_is_enough(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "metrics.log").write_text("loss=0.5\n")
    (tmp_path / "17.pid").write_text("completed\n")
    args = ("-t", "trial", "-m", "loss", "-path", str(tmp_path / "metrics.log"), "-w", "false")
    container = InProcessContainer(args, {}, pod.shown.extend, asyncio.Event())
    assert await FileMetricsCollector(pod.db_manager, pod._tell)(container) == 0
    assert pod.reported() == ["loss=0.5"]


async def test_event_files_are_reported(make_pod: MakePod, tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path / "run"))
    writer.add_event(Event(wall_time=0, summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])))
    writer.close()
    pod = make_pod(tmp_path, image=EVENT_IMAGE)
    assert await pod.run("true", path="", metrics="run/loss;acc") == 0
    assert pod.reported() == ["run/loss=0.5"]
    other = make_pod(tmp_path, image=EVENT_IMAGE)
    assert await other.run("true", path="", metrics="acc") == 0
    assert other.db_manager.get_observation_log("trial") == [MetricLog(YEAR_ONE, "acc", "unavailable")]
    failing = make_pod(tmp_path / "new", image=EVENT_IMAGE)
    assert await failing.run("false", path="") == 1


@both_modes("event-files-know-no-early-stopping")
async def test_stop_rules_beside_event_files(make_pod: MakePod, tmp_path: Path, strict: bool) -> None:
    pod = make_pod(tmp_path, image=EVENT_IMAGE, strict=strict)
    assert await pod.run("true", "-stop-rule", RULE, path="") == (2 if strict else 0)
    assert b"unrecognized arguments: -stop-rule" in pod.shown


async def test_a_large_log_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    line = "x" * 90 + "\n"
    (tmp_path / "metrics.log").write_text((line * 100 + "loss=0.25\n") * 2000)
    (tmp_path / "17.pid").write_text("completed\n")
    ended, size, gaps = asyncio.Event(), 0, [time.monotonic()]
    ended.set()

    def count(added: bytes) -> None:
        nonlocal size
        size += len(added)

    async def tick() -> None:
        while True:
            gaps.append(time.monotonic())
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    args = ("-t", "trial", "-m", "loss", "-path", str(tmp_path / "metrics.log"))
    db_manager = DBManager()
    code = await FileMetricsCollector(db_manager, lambda *_: None)(InProcessContainer(args, {}, count, ended))
    ticking.cancel()
    assert (code, size) == (0, (tmp_path / "metrics.log").stat().st_size)
    assert len(db_manager.get_observation_log("trial")) == 2000
    assert max(after - before for before, after in pairwise(gaps)) < 0.5
