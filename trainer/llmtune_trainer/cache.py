"""What runs share so that it is done once: downloads and prepared data, by what they were made from.

Two locks guard an entry. Whoever builds it holds `build.lock` alone; whoever builds or uses it shares `use.lock`, which
only eviction takes alone, and never waits for. So users never wait for each other, first users wait for one builder,
and nothing goes away under a user. The locks die with their holders: what a dead builder left is gone on from.

Without `--cache_dir` the same happens in the run's own workspace, and goes with it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llmtune_trainer.addresses import local_path
from llmtune_trainer.cache_entry import ABSENT, DamagedError, Entry, remove, size_of, write_text
from llmtune_trainer.cache_s3 import CacheInS3
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.eviction import alone_too_large, evict, size_text, told_gone
from llmtune_trainer.locks import NO_LOCKS, Lock, problem_of_locks, share, take, try_to_take
from llmtune_trainer.settings import Settings

FLAG = "--cache_dir"
# A builder fills the folder, and may return the sha256 of files as their source gives it.
Build = Callable[[Path], Mapping[str, str] | None]
FULL = {errno.ENOSPC, errno.EDQUOT}
UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, *NO_LOCKS}


class CacheFullError(TrainerError):
    pass


class _UnwritableError(Exception):
    """The folder, or what lies in it, is not this user's to write."""


class Cache:
    def __init__(
        self,
        root: Path,
        say: Callable[[str], None],
        *,
        own: Path | None = None,
        max_bytes: int | None = None,
        distant: CacheInS3 | None = None,
    ) -> None:
        """``own``: where to build when ``root`` cannot be written to; ``distant``: where other nodes look, too."""
        self._root = root
        self._own = own or root
        self._lent: Path | None = None
        self.say = say
        # What everybody expects of a workspace is not worth a line.
        self._report = say if distant or self._own != root else _silent
        self._max_bytes = max_bytes
        self._distant = distant
        self._held: dict[Path, Lock | None] = {}

    def get(self, kind: str, key: Mapping[str, Any], build: Build) -> Path:
        """Return the complete and verified folder of this key, which stays until ``close``.

        Nobody else builds the same at the same time. ``build`` fills a folder that is empty, or that a predecessor who
        died left half filled.
        """
        if self._lent is not None and (found := self._find_lent(Entry.of(self._lent, kind, key))):
            return found
        entry = Entry.of(self._root, kind, key)
        if entry.folder in self._held:
            return entry.files
        try:
            self._held[entry.folder] = self._enter(entry, build)
        except _UnwritableError as error:
            self.retreat(str(error))
            return self.get(kind, key, build)
        return entry.files

    def make_room(self, folder: Path, size: int) -> None:
        """Called by a builder that knows how large its folder will be, before it fills it."""
        entry = Entry.at(folder.parent.parent)
        missing = max(0, size - size_of(folder))
        self._evict(entry, missing)
        disk = shutil.disk_usage(folder)
        if disk.total and missing > disk.free:
            raise self._full(entry, f"{size_text(missing)} more are needed and {size_text(disk.free)} are free")

    def read_note(self, about: Mapping[str, Any]) -> str | None:
        """Return what was noted for other runs, if anything."""
        name = _note(about)
        for folder in (self._root, self._lent):
            try:
                if folder is not None:
                    return (folder / name).read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
        return None if self._distant is None else self._distant.read_note(name)

    def write_note(self, about: Mapping[str, Any], text: str) -> None:
        """Note what costs to find out; a cache that cannot keep it keeps nothing."""
        name = _note(about)
        try:
            (self._root / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(self._root / name, text)
        except OSError:
            return
        if self._distant is not None:
            self._distant.write_note(name, text)

    def retreat(self, reason: str) -> None:
        """Build in the own workspace from now on, and only look into the shared folder."""
        self.say(
            f"cache: `{FLAG}`={str(self._root)!r} {reason}; what is complete there is used, all else is made "
            "in the workspace of this run"
        )
        self._lent, self._root, self._max_bytes = self._root, self._own, None

    def close(self) -> None:
        for hold in self._held.values():
            if hold is not None:
                hold.release()
        self._held.clear()

    def _enter(self, entry: Entry, build: Build) -> Lock:
        """Return the lock of a user of the entry, which is then complete."""
        with self._told(entry):
            entry.folder.mkdir(parents=True, exist_ok=True)
            hold = share(entry.use_lock)
        try:
            if entry.problem() is None:
                self._report(f"cache: {entry.name} is there")
            else:
                self._make(entry, hold, build)
            _mark_as_used(entry)
        except BaseException:
            hold.release()
            raise
        return hold

    def _find_lent(self, entry: Entry) -> Path | None:
        if entry.folder in self._held:
            return entry.files
        try:
            hold = share(entry.use_lock)
        except OSError:
            hold = None  # nobody evicts where nobody can lock
        problem = entry.problem()
        if problem is None:
            self._held[entry.folder] = hold
            return entry.files
        if problem != ABSENT:
            self.say(f"cache: {entry.name} {problem}; it is left alone and made again in the workspace")
        if hold is not None:
            hold.release()
        return None

    def _make(self, entry: Entry, hold: Lock, build: Build) -> None:
        with self._alone(entry):
            problem = entry.problem()
            if problem is None:
                return
            if problem != ABSENT:
                self.say(f"cache: {entry.name} {problem}; it is moved away and made again")
                broken = entry.move_away()
                # Whoever still reads it has it open, and on some shared volumes would fall when it went.
                if hold.is_sole():
                    remove(broken)
            self._evict(entry, 0)
            started = time.monotonic()
            how = self._fill(entry, build)
            size = entry.bytes()
            self._report(f"cache: {entry.name} is {how}: {size_text(size)} in {time.monotonic() - started:.1f} s")
            if self._max_bytes is not None and size > self._max_bytes:
                self.say(alone_too_large(entry.name, self._max_bytes))
            self._evict(entry, 0)

    @contextmanager
    def _alone(self, entry: Entry) -> Iterator[None]:
        with self._told(entry):
            lock = try_to_take(entry.build_lock)
            if lock is None:
                self._report(f"cache: {entry.name} is being made by another run; waiting for it")
                lock = take(entry.build_lock)
        try:
            yield
        finally:
            lock.release()

    def _fill(self, entry: Entry, build: Build) -> str:
        """Return how: made, or fetched."""
        try:
            with self._told(entry):
                filled = entry.start()
            if self._distant is not None:
                return self._fetch_or_build(entry, filled, build, self._distant)
            self._build(entry, filled, build)
        except Exception as error:
            if not (isinstance(error, CacheFullError) or _is_full(error)):
                raise
            written = size_text(size_of(entry.unfinished))
            remove(entry.unfinished)  # it would keep others from going on, too
            if isinstance(error, CacheFullError):
                raise
            free = size_text(shutil.disk_usage(entry.folder).free)
            raise self._full(entry, f"{written} were written, {free} are free now, more is needed") from error
        return "made"

    def _build(self, entry: Entry, filled: Path, build: Build) -> None:
        try:
            entry.finish(build(filled) or {})
        except DamagedError as error:
            self.say(f"cache: {error} It is fetched once more")
            entry.finish(build(filled) or {})

    def _fetch_or_build(self, entry: Entry, filled: Path, build: Build, distant: CacheInS3) -> str:
        broken = False
        try:
            try:
                if (known := distant.fetch(entry, filled)) is not None:
                    entry.finish(known)
                    return "fetched"
            except DamagedError as error:
                self.say(f"cache: {error} It is made again")
                broken = True
            self._build(entry, filled, build)
            distant.store(entry, replace=broken)
            return "made"
        finally:
            distant.release(entry)

    def _evict(self, kept: Entry, needed: int) -> None:
        for gone, size in evict(self._root, kept, needed, self._max_bytes):
            self._report(told_gone(gone.name, size))

    def _full(self, entry: Entry, why: str) -> CacheFullError:
        place = f"`{FLAG}`={str(self._root)!r}" if self._root != self._own else f"The workspace {self._root}"
        return CacheFullError(
            f"{place} has no room for {entry.name}: {why}. Fix: free or add space there, name a larger volume with "
            f"{FLAG}, or have old entries go with --cache_max_bytes."
        )

    @contextmanager
    def _told(self, entry: Entry) -> Iterator[None]:
        """Around what needs to write before anything is built."""
        try:
            yield
        except OSError as error:
            if _is_full(error):
                raise self._full(entry, "not even a folder can be made") from error
            if error.errno in UNWRITABLE and self._root != self._own:
                raise _UnwritableError(f"cannot be written to ({error.strerror})") from error
            raise


def open_cache(settings: Settings, workspace: Path, say: Callable[[str], None]) -> Cache:
    own = workspace / "cache"
    place = settings.cache_dir
    if place is None:
        return Cache(own, say)
    if place.startswith("s3://"):
        return Cache(own, say, distant=CacheInS3(place, say, settings.cache_max_bytes))
    folder = local_path(place)
    if folder is None:
        raise BadInputError(f"`{FLAG}`={place!r} has an unknown scheme. Fix: give a folder or s3://bucket/prefix.")
    folder = folder.absolute()
    cache = Cache(folder, say, own=own, max_bytes=settings.cache_max_bytes)
    if reason := _problem_of(folder):
        cache.retreat(reason)
    return cache


def _problem_of(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return problem_of_locks(folder)


def _mark_as_used(entry: Entry) -> None:
    with suppress(OSError):  # of another user; its age only decides what goes first
        os.utime(entry.use_lock)


def _is_full(error: BaseException | None) -> bool:
    """Libraries wrap the error, or give its words only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(os.strerror(number) in str(error) for number in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _note(about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return f"notes/{digest}"


def _silent(_: str) -> None:
    pass
