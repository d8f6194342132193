"""The training that a collector watches: its first process, how it says that it is complete, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

COMPLETED = "completed"
EARLY_STOPPED = "early-stopped"

_LOOK_SECONDS = 0.1
_LONGEST_MARK_BYTES = 64


class ManyChildrenError(Exception):
    """Katib's collector would not know which process to terminate."""


def has_completed(folder: Path) -> bool:
    """Whether a wrapped command has written ``<folder>/<its process number>.pid`` as its last act."""
    return any(file.stem.isdigit() and _mark(file) == COMPLETED for file in folder.glob("*.pid"))


def _mark(file: Path) -> str:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(_LONGEST_MARK_BYTES).decode(errors="replace").strip()
    return ""


async def main_process(root_pids: Sequence[int], folder: Path) -> psutil.Process | None:
    """The pod's first process, or the one whose command marks its completion in this folder."""
    return await asyncio.to_thread(_find_main, root_pids, folder)


def mark_early_stopped(main: psutil.Process, folder: Path) -> None:
    """The wrapped command looks for this when what it runs has failed."""
    (folder / f"{main.pid}.pid").write_text(f"{EARLY_STOPPED}\n")


async def check_only_child(main: psutil.Process) -> None:
    """Upstream takes it for fatal when a shell has not exactly one child."""
    count = len(await asyncio.to_thread(_children, main))
    if count != 1:
        raise ManyChildrenError(f"Multiple children processes are not supported. Children processes: {count}")


async def terminate_children(main: psutil.Process, seconds: float) -> bool:
    """Whether the main process has ended in time, because what it ran has been terminated.

    Every child is terminated once, also one that is started later on, as a loop does.
    """
    terminated: set[psutil.Process] = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await asyncio.to_thread(_has_ended, main, terminated):
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


def _children(main: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(main.children())
    return []


def _find_main(pids: Sequence[int], folder: Path) -> psutil.Process | None:
    found: psutil.Process | None = None
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if f"echo {COMPLETED} > {folder}" in " ".join(process.cmdline()):
                return process
            found = found or process
    return found


def _has_ended(main: psutil.Process, terminated: set[psutil.Process]) -> bool:
    try:
        if not main.is_running() or main.status() == psutil.STATUS_ZOMBIE:
            return True
    except psutil.NoSuchProcess:
        return True
    for child in _children(main):
        if child not in terminated:
            terminated.add(child)
            with contextlib.suppress(psutil.Error):
                child.terminate()
    return False
