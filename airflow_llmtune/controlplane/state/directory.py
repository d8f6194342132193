"""One control plane per state directory, told by a lock that goes with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from airflow_llmtune.controlplane.state.errors import StateError

LOCK_FILE = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder. A killed process lets go of it, and the processes of its pods do not inherit it."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
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
