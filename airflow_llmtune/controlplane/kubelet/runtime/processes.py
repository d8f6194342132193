"""Which processes there are, how much memory they use, and how to end them. Most of it needs Linux and its ``/proc``.

A process group is not enough to know a container's processes: torchrun starts its workers in sessions of their own,
and shells put jobs in groups of their own. Two things hold: the tree below a shim, which adopts its orphans, and a
mark in the environment, which is inherited. The mark finds the processes also when their shim is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

MARK = "LLMTUNE_CONTAINER"
"""The variable; its value is ``<kubelet>/<pod uid>/<container>/<restart>``."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 40
_ROUND_SECONDS = 0.005


def _prctl(option: int, value: int) -> None:
    """Do nothing where there is no such call."""
    call = getattr(ctypes.CDLL(None), "prctl", None)
    if call is not None:
        call(option, ctypes.c_ulong(value), 0, 0, 0)


def adopt_orphans() -> None:
    """From now on, what is below this process stays below it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: signal.Signals) -> None:
    """Get this signal when the parent dies, however it dies."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _numbers() -> list[str]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208  pathlib would make an object per process
    except FileNotFoundError:
        return []
    return [name for name in names if name.isdigit()]


def _read(path: str) -> bytes:
    """Nothing for a process that has ended or belongs to somebody else."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  as above
            return file.read()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Whether it is there and not only waits for its parent to notice its end."""
    stat = _read(f"/proc/{pid}/stat")
    if stat:
        return stat.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(root: int) -> list[int]:
    """All processes below this one, parents first. One that is just being forked may be missing."""
    # Every shim asks each second: none should look at the processes of all others. Some kernels offer nothing else.
    children = _children if Path("/proc/thread-self/children").exists() else _all_children().__getitem__
    found = list(children(root))
    for pid in found:
        found += children(pid)
    return found


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  as above
    except OSError:
        return []
    return [int(word) for thread in threads for word in _read(f"/proc/{pid}/task/{thread}/children").split()]


def _all_children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for name in _numbers():
        fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
        if fields:
            found[int(fields[1])].append(int(name))
    return found


def marked(mark: str) -> list[int]:
    """The processes whose mark starts with this text."""
    wanted = f"{MARK}={mark}".encode()
    return [int(name) for name in _numbers() if wanted in _read(f"/proc/{name}/environ")]


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_marked(mark: str) -> None:
    """Until none is left: one that is just being forked can escape a single look."""
    own = os.getpid()
    for _ in range(_ROUNDS):
        pids = [pid for pid in marked(mark) if pid != own]
        if not pids:
            return
        kill(pids)
        time.sleep(_ROUND_SECONDS)


def resident_memory(pids: Iterable[int]) -> int:
    """What these processes may use at most: memory that they share counts for each of them. Costs little."""
    return sum(_kilobytes(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) for pid in pids) * 1024


def used_memory(pids: Iterable[int]) -> int:
    """What these processes use, each its part of what they share, without mapped files, which can be dropped."""
    fields = (b"Pss_Anon:", b"Pss_Shmem:")
    return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", fields) for pid in pids) * 1024


def _kilobytes(path: str, fields: tuple[bytes, ...]) -> int:
    lines = [line.split() for line in _read(path).splitlines() if line.startswith(fields)]
    return sum(int(words[1]) for words in lines)
