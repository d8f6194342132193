"""The folder of a control plane: one at a time, told by a lock that goes with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from airflow_llmtune.controlplane.state.errors import StateError

LOCK_FILE = "lock"

_PREFIX = "llmtune-"
_TEMPORARY_LOCK_FILE = "temporary.lock"
_PLAIN = re.compile(r"[\w./+:=@%,-]+")
_YOUNG_SECONDS = 60.0
"""One that has just been made may not be locked yet."""


def check_path(folder: Path) -> None:
    """Pods see its path in place of their volumes' mount paths, also inside of shell commands."""
    if _PLAIN.fullmatch(str(folder)) is None:
        raise StateError(
            f"the state directory {str(folder)!r} cannot be used: shell commands of pods contain its path, and only "
            "letters, digits and ./_+:=@%,- come through unquoted; choose another one"
        )


@contextlib.contextmanager
def locked(folder: Path, file: str = LOCK_FILE) -> Iterator[None]:
    """Hold the folder. A killed process lets go of it, and the processes of its pods do not inherit it."""
    handle = os.open(folder / file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace") or "unknown"
            raise StateError(
                f"the state directory {folder} is in use by another control plane (process {holder}), and two may not "
                "share one: stop that one, or choose another state directory"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        # The file stays: whoever removed it could remove one that the next control plane has just locked.
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder that goes at the end. Those of control planes that were killed before go at once."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_TEMPORARY_LOCK_FILE}"):
        _remove_left(lock)
    made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    with made as name, locked(Path(name), _TEMPORARY_LOCK_FILE):
        yield Path(name)


def _remove_left(lock: Path) -> None:
    with contextlib.suppress(OSError, StateError):
        # Others may put links to anything into a folder for temporary files.
        is_own = not lock.parent.is_symlink() and lock.parent.stat().st_uid == os.getuid()
        if is_own and time.time() - lock.stat().st_mtime > _YOUNG_SECONDS:
            with locked(lock.parent, _TEMPORARY_LOCK_FILE):
                shutil.rmtree(lock.parent)
