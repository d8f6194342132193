"""What leaves a cache that is bounded: the entries that were not used for longest, and never one in use.

Of a folder; eviction_s3.py is about S3.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from llmtune_trainer.cache_entry import Entry, remove
from llmtune_trainer.locks import try_to_take

# What a dead builder left and nobody asked for again goes from every cache.
FORGOTTEN_SECONDS = 7 * 24 * 3600.0


def evict(root: Path, kept: Entry, needed: int, max_bytes: int | None) -> Iterator[tuple[Entry, int]]:
    """Remove until what is needed fits beside what is kept, and yield what went, with its size."""
    others = sorted(_entries(root, kept), key=Entry.last_used)
    if max_bytes is None:
        _remove_forgotten(others)
        return
    sizes = {entry.folder: entry.bytes() for entry in others}
    total = sum(sizes.values()) + kept.bytes() + needed
    for entry in others:
        size = sizes[entry.folder]
        if total > max_bytes and size and _remove_if_unused(entry):
            total -= size
            yield entry, size


def told_gone(name: str, size: int) -> str:
    return f"cache: {name} is evicted: {size_text(size)}, the longest unused"


def alone_too_large(name: str, max_bytes: int) -> str:
    return f"cache: {name} alone is larger than --cache_max_bytes ({size_text(max_bytes)})"


def size_text(size: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def _entries(root: Path, without: Entry) -> list[Entry]:
    found = [Entry.at(lock.parent) for lock in root.glob("*/*/use.lock")]
    return [entry for entry in found if entry.folder != without.folder]


def _remove_forgotten(entries: list[Entry]) -> None:
    for entry in entries:
        if time.time() - entry.last_used() > FORGOTTEN_SECONDS and entry.leftovers():
            _remove_if_unused(entry, only_leftovers=True)


def _remove_if_unused(entry: Entry, *, only_leftovers: bool = False) -> bool:
    try:
        lock = try_to_take(entry.use_lock)
    except OSError:
        return False  # another user's
    if lock is None:
        return False
    try:
        if not only_leftovers and entry.files.parent.is_dir():
            entry.move_away()  # one step: nobody ever sees half of it
        for leftover in entry.leftovers():
            remove(leftover)
    finally:
        lock.release()
    return True
