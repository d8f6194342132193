"""Locks on files (flock): they die with their holder, and hold between threads, processes and the nodes of a volume."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

# What file systems without locks answer.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class Lock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)

    def is_sole(self) -> bool:
        """Tell whether nobody else holds this shared lock."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return True


def share(file: Path) -> Lock:
    """Wait for those that hold it alone."""
    lock = _lock(file, fcntl.LOCK_SH)
    assert lock is not None
    return lock


def take(file: Path) -> Lock:
    """Wait for all others, however long that takes; a signal ends the wait."""
    lock = _lock(file, fcntl.LOCK_EX)
    assert lock is not None
    return lock


def try_to_take(file: Path) -> Lock | None:
    return _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def problem_of_locks(folder: Path) -> str | None:
    """Say why no lock can be had there."""
    probe = folder / ".locks"
    try:
        first = try_to_take(probe)
        if first is None:
            return None  # another process probes at this moment: its lock holds
        second = try_to_take(probe)
        first.release()
    except OSError as error:
        return "has no locks (flock)" if error.errno in NO_LOCKS else f"cannot be written to ({error.strerror})"
    if second is None:
        return None
    second.release()
    return "has locks that hold nobody back (flock)"


def _lock(file: Path, operation: int) -> Lock | None:
    descriptor = _open(file, for_writing=not operation & fcntl.LOCK_SH)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def _open(file: Path, *, for_writing: bool) -> int:
    try:
        # NFS gives an exclusive lock only on what is open for writing.
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if for_writing or error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
