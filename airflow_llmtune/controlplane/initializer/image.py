"""The image of the storage initializer, served by starting a program for each run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer, InProcessImage

NAME = "kserve/storage-initializer"

_PROGRAM = Path(__file__).with_name("program.py")
_TRAINER = "airflow-llmtune/trainer"
_CLIENTS = {"s3": "boto3", "hf": "huggingface_hub"}
_KILLED = 128
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


def initializer_images(images: Mapping[str, Path] | None) -> dict[str, InProcessImage]:
    """``images``: the prefixes of those that are known; the trainer's has clients that may be missing here."""
    prefix = (images or {}).get(_TRAINER)

    async def run(container: InProcessContainer) -> int:
        is_able = all(map(_has_client, container.args[::2]))
        python = sys.executable if is_able or prefix is None else str(prefix / "bin" / "python")
        return await _run(python, container)

    return {NAME: run}


def _has_client(uri: str) -> bool:
    client = _CLIENTS.get(uri.partition("://")[0])
    return client is None or find_spec(client) is not None


async def _run(python: str, container: InProcessContainer) -> int:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        python,
        "-P",  # The program's folder is none to import from.
        str(_PROGRAM),
        *container.args,
        # It ends itself when this pipe closes, so it does not outlive the control plane.
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**inherited, **container.env, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            container.write_log(line)
        code = await process.wait()
        return code if code >= 0 else _KILLED - code
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
