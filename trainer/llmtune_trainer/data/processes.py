"""Rows encoded by several processes, which pays where there are many rows and many cores."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from llmtune_trainer.data.encoding import Encoded, Encoder, Row

# A row takes half a millisecond, and a fork of a process with torch in it a tenth of a second.
FEW_ROWS = 20_000
MOST_PROCESSES = 16
CHUNK = 128
PR_SET_PDEATHSIG = 1

_encoder: Encoder  # of a worker, which has it from its parent as it was at the fork


def encode_all(rows: Iterable[Row], encoder: Encoder, count: int) -> Iterator[Encoded]:
    """Return what the encoder makes of each row, in order."""
    workers = min(len(os.sched_getaffinity(0)) - 1, MOST_PROCESSES)
    if workers < 2 or count < FEW_ROWS:
        return map(encoder, rows)
    return _in_processes(rows, encoder, workers)


def _in_processes(rows: Iterable[Row], encoder: Encoder, workers: int) -> Iterator[Encoded]:
    rest = iter(rows)
    chunks = iter(lambda: list(islice(rest, CHUNK)), [])
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start, (encoder, os.getpid())) as pool:
        # So many chunks are under way that no worker waits, and no more: the rows may be millions.
        running: deque[Future[list[Encoded]]] = deque(
            pool.submit(_encode, chunk) for chunk in islice(chunks, 2 * workers)
        )
        while running:
            yield from running.popleft().result()
            running.extend(pool.submit(_encode, chunk) for chunk in islice(chunks, 1))


def _start(encoder: Encoder, parent: int) -> None:
    global _encoder
    _encoder = encoder
    # A worker holds the locks that its parent has: it dies with it, also when that is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _encode(rows: list[Row]) -> list[Encoded]:
    return [_encoder(row) for row in rows]
