"""The folder that the processes of one node share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmtune_trainer.__main__ import World, _workspace


def _world(local_rank: int, **environ: str) -> World:
    return World.of({"RANK": str(local_rank), "LOCAL_RANK": str(local_rank), "WORLD_SIZE": "2", **environ})


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_the_processes_of_a_node_share_one_folder_that_the_first_removes(scratch: Path) -> None:
    with _workspace(_world(0)) as first, _workspace(_world(1)) as second:
        assert first == second
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"])
def test_another_launch_has_another_folder(name: str) -> None:
    with _workspace(_world(0, **{name: "../1"})) as first, _workspace(_world(0, **{name: "2"})) as second:
        assert first != second
        assert first.parent == second.parent


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="has no /proc")
def test_a_folder_left_by_a_parent_of_the_same_number_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with _workspace(_world(1)) as left:
        pass
    (left / "packed-0.arrow").touch()
    monkeypatch.setattr("llmtune_trainer.__main__._started", lambda _: "later")
    with _workspace(_world(0)) as folder:
        assert folder.name.startswith(f"llmtune-{os.getppid()}-")
        assert list(folder.iterdir()) == []
