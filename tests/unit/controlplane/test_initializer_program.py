"""The program that fetches models, run as the control plane runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.initializer import image
from airflow_llmtune.controlplane.initializer.image import NAME, initializer_images
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer


async def fetch(*words: object, **env: str) -> tuple[int, str]:
    """Exit code and log."""
    log: list[bytes] = []
    container = InProcessContainer(tuple(map(str, words)), env, log.append, asyncio.Event())
    return await initializer_images(None)[NAME](container), b"".join(log).decode()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "model.bin"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ["config.json", "model.bin", "model.safetensors"]),
        ({"STORAGE_IGNORE_PATTERNS": "*.bin"}, ["config.json", "model.safetensors"]),
        ({"STORAGE_ALLOW_PATTERNS": json.dumps(["*.json", "*.bin"])}, ["config.json", "model.bin"]),
    ],
)
async def test_files_of_the_host_are_linked(model: Path, tmp_path: Path, env: Any, names: list[str]) -> None:
    folder = tmp_path / "target"
    assert await fetch(f"file://{model}", folder, **env) == (0, f"Fetching file://{model}\n")
    assert sorted(one.name for one in folder.iterdir()) == names
    assert all(one.is_symlink() for one in folder.iterdir())


async def test_it_may_be_run_again(model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        code, _ = await fetch(model, tmp_path / "target", f"{model}/config.json", tmp_path / "one")
        assert code == 0
    assert (tmp_path / "one" / "config.json").read_text() == "config.json"


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("/nowhere/at/all", "Local path /nowhere/at/all does not exist."),
        ("gs://bucket/model", "gs://bucket/model is not supported here: s3://, hf://, file://, pvc:// and paths are"),
        (
            "hf://org",
            "Invalid Hugging Face URI format. Expected 'hf://owner/model[:revision]', got 'hf://org'",
        ),
        (
            "hf://org/model/file",
            "Invalid Hugging Face URI format. Expected 'hf://owner/model[:revision]', got 'hf://org/model/file'",
        ),
    ],
)
async def test_why_a_model_cannot_be_fetched(tmp_path: Path, uri: str, text: str) -> None:
    assert await fetch(uri, tmp_path) == (1, f"Fetching {uri}\nFailed to fetch model: {text}\n")


async def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hidden"}
    code, log = await fetch("s3://bucket/model", tmp_path, S3_MAX_ATTEMPTS="1", **env)
    assert code == 1
    assert "Failed to fetch model: s3://bucket/model: Could not connect to the endpoint URL" in log
    assert "hidden" not in log


async def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, log = await fetch(tmp_path / "empty", tmp_path / "target")
    assert (code, log.splitlines()[-1]) == (1, f"Failed to fetch model: No model found in {tmp_path / 'empty'}.")


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment of the control plane alone."""
    monkeypatch.setattr(image, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_client")
async def test_the_trainers_programs_are_taken_where_a_client_is_missing(tmp_path: Path) -> None:
    programs = tmp_path / "prefix" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text('#!/bin/sh\necho "own python"\nkill -9 $$\n')
    (programs / "python").chmod(0o755)
    log: list[bytes] = []
    container = InProcessContainer(("s3://b/a", str(tmp_path)), {}, log.append, asyncio.Event())
    run = initializer_images({"airflow-llmtune/trainer": tmp_path / "prefix"})[NAME]
    assert await run(container) == 137
    assert log == [b"own python\n"]


@pytest.mark.usefixtures("no_client")
async def test_a_pod_that_is_stopped_ends_it(tmp_path: Path) -> None:
    programs = tmp_path / "prefix" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    (programs / "python").chmod(0o755)
    log: list[bytes] = []
    container = InProcessContainer(("hf://a/b", "c"), {}, log.append, asyncio.Event())
    running = asyncio.ensure_future(
        initializer_images({"airflow-llmtune/trainer": tmp_path / "prefix"})[NAME](container)
    )
    while not log:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{int(log[0])}").exists()
