"""The trainer's tests: one tiny model for all, and the trainer as a function in this process or as a command.

A process that imports torch costs seven seconds, so all that is not about the process itself runs in this one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from launchers import ONE_PROCESS
from llmtune_trainer.__main__ import QUIET, main
from llmtune_trainer.checkpoints import Checkpoints
from s3_server import S3, running_s3

# Read by the libraries when they are imported. One thread: the tests share the machine, and spinning threads crawl.
os.environ |= {**QUIET, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

METRIC_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (\w+)=(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


@dataclass(frozen=True)
class Run:
    code: int
    stdout: str
    stderr: str
    termination: dict[str, Any]

    @property
    def metrics(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for line in self.stdout.splitlines():
            if match := METRIC_LINE.fullmatch(line):
                found.setdefault(match[1], []).append(float(match[2]))
        return found

    @property
    def results(self) -> dict[str, float]:
        """The metrics of the summary that the machine has no part in."""
        of_machine = ("train_tokens_per_second", "peak_memory_bytes")
        return {name: value for name, value in self.termination["metrics"].items() if name not in of_machine}

    def last(self, *names: str) -> dict[str, float]:
        """Return these metrics of the last evaluation, which are those of the summary, too."""
        assert self.code == 0, self.stderr
        found = {name: self.metrics[name][-1] for name in names}
        assert self.termination["metrics"].items() >= found.items()
        return found


Train = Callable[..., Run]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build_data(tmp_path_factory.mktemp("data"))


def as_arguments(model: Path | str, data: Path | str, settings: dict[str, Any]) -> list[str]:
    given = {"model_name_or_path": model, "dataset_name": data, "dtype": "float32", **settings}
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


@pytest.fixture
def train(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Train]:
    """Run the trainer in this process; afterwards its workspace must be gone."""
    workspaces = tmp_path / "workspaces"
    workspaces.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(workspaces))

    def run(*, on: Path | str = data, of: Path | str = model, mode: Sequence[str] = (), **settings: Any) -> Run:
        log = tmp_path / "termination-log"
        log.unlink(missing_ok=True)
        capsys.readouterr()
        code = main([*mode, *as_arguments(of, on, settings)], {"LLMTUNE_TERMINATION_LOG": str(log)})
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err, json.loads(log.read_text(encoding="utf-8")))

    yield run
    assert [entry.name for entry in workspaces.iterdir() if entry.name.startswith("llmtune-")] == []


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Have this process get SIGTERM once the checkpoint of a step is stored; it is then stopped one step later."""
    save = Checkpoints.save

    def arrange(step: int) -> None:
        def save_and_signal(self: Checkpoints, made: Path, at: int) -> None:
            save(self, made, at)
            if at == step:
                monkeypatch.setattr(Checkpoints, "save", save)
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Checkpoints, "save", save_and_signal)

    def unexpected(*_: object) -> None:
        raise AssertionError("nobody heeds SIGTERM")

    before = signal.signal(signal.SIGTERM, unexpected)
    yield arrange
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Run]:
    """Run the trainer as a process of its own."""

    def run(
        arguments: Sequence[str], launcher: Sequence[str] = ONE_PROCESS, environ: dict[str, str] | None = None
    ) -> Run:
        log = tmp_path / "termination-log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [*launcher, *arguments],
            env={**os.environ, **(environ or {}), "LLMTUNE_TERMINATION_LOG": str(log)},
            capture_output=True,
            text=True,
            timeout=90,
            cwd=tmp_path,
            check=False,
        )
        termination = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
        return Run(done.returncode, done.stdout, done.stderr, termination)

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with running_s3() as running:
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A store with one bucket, ``llm``, which is empty; boto3 finds it by the environment."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.begin_anew("llm")
    return server
