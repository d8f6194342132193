from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmtune_trainer.cache import Cache, CacheFullError, open_cache
from llmtune_trainer.cache_entry import DamagedError, Entry, size_of
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.eviction import FORGOTTEN_SECONDS

KEY = {"source": "s3://bucket/data", "etags": "abc"}
SIZE = 100

# A first user as a process of its own: it starts when told to, builds slowly, and leaves a line for each build.
USER = """
import os, sys, time
from pathlib import Path
from llmtune_trainer.cache import Cache
root, go, built = map(Path, sys.argv[1:4])
def build(folder):
    with built.open("a") as log:
        log.write(f"{os.getpid()}\\n")
    for name in ("a", "b"):
        (folder / name).write_text(name * 1000)
        time.sleep(0.1)
cache = Cache(root, print, own=Path("/nowhere"))
print("ready", flush=True)
while not go.exists():
    time.sleep(0.005)
found = cache.get("dataset", {"source": "s3://bucket/data", "etags": "abc"}, build)
print(sorted((file.name, file.read_text()) for file in found.iterdir()) == [("a", "a" * 1000), ("b", "b" * 1000)])
"""

# A builder that gets half way, says so, and waits to be killed.
BUILDER = """
import sys, time
from pathlib import Path
from llmtune_trainer.cache import Cache
def build(folder):
    (folder / "a").write_text("a")
    print("half way", flush=True)
    time.sleep(60)
Cache(Path(sys.argv[1]), print).get("dataset", {"source": "s3://bucket/data", "etags": "abc"}, build)
"""

# One that waits for it, and stops when told to, as the trainer does.
WAITER = """
import signal, sys, time
from functools import partial
from pathlib import Path
from llmtune_trainer.cache import Cache
def stop(number, _):
    raise SystemExit(128 + number)
signal.signal(signal.SIGTERM, stop)
root = Path(sys.argv[1])
while not list(root.glob("dataset/*/unfinished/files/a")):
    time.sleep(0.01)
cache = Cache(root, partial(print, flush=True), own=Path("/nowhere"))
cache.get("dataset", {"source": "s3://bucket/data", "etags": "abc"}, lambda _: None)
"""


class Says(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)

    def once(self, words: str) -> bool:
        return sum(words in line for line in self) == 1


@pytest.fixture
def says() -> Says:
    return Says()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(root: Path, says: Says, tmp_path: Path) -> Iterator[Callable[..., Cache]]:
    caches = []

    def make(**options: Any) -> Cache:
        caches.append(Cache(root, says, own=tmp_path / "own", **options))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def writes(name: str = "rows", text: str = "x" * SIZE) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return build


def not_called(_: Path) -> None:
    raise AssertionError("it is there already")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def settings(**given: Any) -> Any:
    return SimpleNamespace(**{"cache_dir": None, "cache_max_bytes": None, **given})


# --- one builder, many users --------------------------------------------------------------------------------


def test_of_eight_first_users_one_builds_and_all_read_the_whole(root: Path, tmp_path: Path) -> None:
    go, built = tmp_path / "go", tmp_path / "built"
    users = [start(USER, root, go, built) for _ in range(8)]
    try:
        for user in users:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
        go.touch()
        answers = [user.communicate(timeout=60)[0].splitlines()[-1] for user in users]
    finally:
        for user in users:
            user.kill()
            user.communicate()
    assert answers == ["True"] * 8
    assert len(built.read_text(encoding="utf-8").splitlines()) == 1


def test_eight_threads_with_caches_of_their_own_build_once(opened: Callable[..., Cache]) -> None:
    built, found, together = [], [], threading.Barrier(8)

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.1)
        writes()(folder)

    def use(cache: Cache) -> None:
        together.wait(timeout=30)
        found.append((cache.get("dataset", KEY, build) / "rows").read_text(encoding="utf-8"))

    threads = [threading.Thread(target=use, args=(opened(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(built) == 1
    assert found == ["x" * SIZE] * 8


def test_what_a_killed_builder_left_is_gone_on_from(root: Path, opened: Callable[..., Cache]) -> None:
    builder = start(BUILDER, root)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "half way\n"
    builder.kill()
    builder.communicate()

    def go_on(folder: Path) -> None:
        assert (folder / "a").read_text(encoding="utf-8") == "a"
        writes("b", "b")(folder)

    found = opened().get("dataset", KEY, go_on)
    assert sorted(file.name for file in found.iterdir()) == ["a", "b"]
    assert not (found.parent.parent / "unfinished").exists()


def test_whoever_waits_for_a_builder_heeds_a_signal(root: Path) -> None:
    with start(BUILDER, root) as builder, start(WAITER, root) as waiter:
        try:
            assert builder.stdout is not None
            assert builder.stdout.readline() == "half way\n"
            assert waiter.stdout is not None
            assert "is being made by another run; waiting for it" in waiter.stdout.readline()
            waiter.send_signal(signal.SIGTERM)
            assert waiter.wait(timeout=30) == 143
        finally:
            builder.kill()
            waiter.kill()


def test_a_builder_that_fails_leaves_the_work_to_the_next(opened: Callable[..., Cache]) -> None:
    def fail(folder: Path) -> None:
        writes("a")(folder)
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError):
        opened().get("dataset", KEY, fail)
    found = opened().get("dataset", KEY, writes("b"))
    assert sorted(file.name for file in found.iterdir()) == ["a", "b"]


def test_another_key_or_kind_is_another_entry(opened: Callable[..., Cache]) -> None:
    cache = opened()
    first = cache.get("dataset", KEY, writes())
    assert cache.get("dataset", dict(reversed(KEY.items())), not_called) == first
    assert len({first, cache.get("model", KEY, writes()), cache.get("dataset", {**KEY, "etags": "d"}, writes())}) == 3


# --- what is found is verified ------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    os.truncate(file, SIZE // 2)


def alter(file: Path) -> None:
    file.write_text("y" * SIZE, encoding="utf-8")
    os.utime(file, (1, 1))


def forget(file: Path) -> None:
    (file.parent.parent / "manifest.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate, "has 50 of 100 bytes of rows"),
        (alter, "has a rows that is not the one that was stored (sha256)"),
        (Path.unlink, "has lost rows"),
        (forget, "has no readable manifest.json"),
    ],
)
def test_a_broken_entry_is_told_moved_away_and_made_again(
    opened: Callable[..., Cache], says: Says, harm: Callable[[Path], None], words: str
) -> None:
    cache = opened()
    found = cache.get("dataset", KEY, writes())
    cache.close()
    harm(found / "rows")
    assert (opened().get("dataset", KEY, writes()) / "rows").read_text(encoding="utf-8") == "x" * SIZE
    assert says.once(f"{words}; it is moved away and made again")
    assert sorted(path.name for path in found.parent.parent.iterdir()) == ["build.lock", "complete", "use.lock"]


def test_a_broken_entry_stays_beside_the_new_one_while_somebody_reads_it(opened: Callable[..., Cache]) -> None:
    found = opened().get("dataset", KEY, writes())
    with (found / "rows").open() as reader:
        truncate(found / "rows")
        assert opened().get("dataset", KEY, writes()) == found
        assert len(list(found.parent.parent.glob("broken-*"))) == 1
        assert reader.read() == "x" * (SIZE // 2)


def test_a_file_with_another_time_is_read_once_and_then_trusted(
    opened: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened()
    found = cache.get("dataset", KEY, writes())
    cache.close()
    os.utime(found / "rows", (1, 1))
    assert opened().get("dataset", KEY, not_called) == found
    monkeypatch.setattr("llmtune_trainer.cache_entry.sha256_of", not_called)
    assert opened().get("dataset", KEY, not_called) == found


def test_files_that_are_not_what_their_source_says_are_fetched_once_more(
    opened: Callable[..., Cache], says: Says
) -> None:
    right = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # sha256 of "x"
    times = []

    def build(folder: Path) -> dict[str, str]:
        times.append(sorted(file.name for file in folder.iterdir()))
        writes("whole", "x")(folder)
        writes("torn", "x" if len(times) == good else "y")(folder)
        return {"whole": right, "torn": right}

    good = 2
    assert (opened().get("dataset", KEY, build) / "torn").read_text(encoding="utf-8") == "x"
    assert times == [[], ["whole"]]
    assert says.once("came with another sha256 than the source gives")
    good = 0
    with pytest.raises(DamagedError, match=r"torn of dataset/.* another sha256 than the source gives\. Fix:"):
        opened().get("dataset", {"other": 1}, build)


# --- bounded ------------------------------------------------------------------------------------------------


def fill(cache: Cache, *names: str) -> None:
    """Make entries, the first of which was used longest ago."""
    for age, name in enumerate(reversed(names)):
        cache.get("dataset", {"name": name}, writes())
        os.utime(entry(cache, name).use_lock, (1000 - age, 1000 - age))


def entry(cache: Cache, name: str) -> Entry:
    return Entry.of(cache._root, "dataset", {"name": name})


def kept(cache: Cache, *names: str) -> str:
    return "".join(name for name in names if entry(cache, name).problem() is None)


def test_the_longest_unused_goes_first_and_no_more_than_must(opened: Callable[..., Cache], says: Says) -> None:
    cache = opened()
    fill(cache, "a", "b", "c")
    cache.close()
    small = opened(max_bytes=3 * SIZE)
    small.get("dataset", {"name": "d"}, writes())
    assert kept(small, *"abcd") == "bcd"
    assert says.once(f"{entry(small, 'a').name} is evicted: 100 bytes")


def test_use_makes_young(opened: Callable[..., Cache]) -> None:
    cache = opened()
    fill(cache, "a", "b", "c")
    cache.close()
    small = opened(max_bytes=3 * SIZE)
    small.get("dataset", {"name": "a"}, not_called)
    small.close()
    small.get("dataset", {"name": "d"}, writes())
    assert kept(small, *"abcd") == "acd"


def test_what_is_in_use_is_never_evicted(opened: Callable[..., Cache]) -> None:
    user = opened()
    fill(user, "a", "b")
    small = opened(max_bytes=SIZE)
    small.get("dataset", {"name": "c"}, writes())
    assert kept(small, *"abc") == "abc"
    user.close()
    small.close()
    small.get("dataset", {"name": "d"}, writes())
    assert kept(small, *"abcd") == "d"


def test_room_is_made_before_the_download_when_its_size_is_known(opened: Callable[..., Cache]) -> None:
    cache = opened()
    fill(cache, "a", "b")
    cache.close()
    small = opened(max_bytes=3 * SIZE)

    def build(folder: Path) -> None:
        assert kept(small, *"ab") == "ab"
        small.make_room(folder, 2 * SIZE)
        assert kept(small, *"ab") == "b"
        writes("half")(folder)
        small.make_room(folder, 2 * SIZE)  # half of it is there: nothing more must go
        assert kept(small, *"ab") == "b"

    small.get("dataset", {"name": "c"}, build)


def test_a_cache_beyond_its_bound_is_brought_below_it_before_anything_is_built(opened: Callable[..., Cache]) -> None:
    cache = opened()
    fill(cache, "a", "b", "c")
    cache.close()
    small = opened(max_bytes=2 * SIZE)

    def build(_: Path) -> None:
        assert kept(small, *"abc") == "bc"

    small.get("dataset", {"name": "d"}, build)


def test_an_entry_larger_than_the_bound_is_told_and_used(opened: Callable[..., Cache], says: Says) -> None:
    found = opened(max_bytes=SIZE // 2).get("dataset", KEY, writes())
    assert (found / "rows").is_file()
    assert says.once("alone is larger than --cache_max_bytes (50 bytes)")


def test_what_dead_builders_left_counts_and_goes(opened: Callable[..., Cache]) -> None:
    def die(folder: Path) -> None:
        writes()(folder)
        raise KeyboardInterrupt

    cache = opened()
    with pytest.raises(KeyboardInterrupt):
        cache.get("dataset", {"name": "a"}, die)
    opened(max_bytes=2 * SIZE).get("dataset", {"name": "b"}, writes())
    assert entry(cache, "a").unfinished.is_dir()
    opened(max_bytes=2 * SIZE).get("dataset", {"name": "c"}, writes())
    assert not entry(cache, "a").unfinished.exists()


def test_what_a_dead_builder_left_a_week_ago_goes_without_any_bound(opened: Callable[..., Cache]) -> None:
    cache = opened()
    with pytest.raises(ZeroDivisionError):
        cache.get("dataset", {"name": "a"}, lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    cache.get("dataset", {"name": "b"}, writes())
    assert entry(cache, "a").unfinished.is_dir()
    long_ago = time.time() - FORGOTTEN_SECONDS - 1
    os.utime(entry(cache, "a").use_lock, (long_ago, long_ago))
    cache.get("dataset", {"name": "c"}, writes())
    assert not entry(cache, "a").unfinished.exists()
    assert kept(cache, *"bc") == "bc"


# --- a disk that is full ------------------------------------------------------------------------------------


def runs_full(folder: Path) -> None:
    writes()(folder)
    with Path("/dev/full").open("w", encoding="utf-8") as full:  # the kernel's own ENOSPC
        full.write("x")


def runs_full_within_a_library(folder: Path) -> None:
    writes()(folder)
    raise RuntimeError("Data processing error: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("build", [runs_full, runs_full_within_a_library])
def test_a_full_disk_is_told_and_what_filled_it_goes(
    root: Path, opened: Callable[..., Cache], build: Callable[[Path], None]
) -> None:
    words = rf"`--cache_dir`='{root}' has no room for dataset/.*: 100 bytes were written, .* are free now.*"
    with pytest.raises(CacheFullError, match=words + r"Fix: .*--cache_dir, .*--cache_max_bytes"):
        opened().get("dataset", KEY, build)
    assert not Entry.of(root, "dataset", KEY).unfinished.exists()
    assert opened().get("dataset", KEY, writes()).is_dir()


def test_what_cannot_fit_is_refused_before_the_download(root: Path, opened: Callable[..., Cache]) -> None:
    cache = opened()

    def build(folder: Path) -> None:
        cache.make_room(folder, 2**60)
        raise AssertionError("it was to stop here")

    with pytest.raises(CacheFullError, match=r"1073741824.0 GiB more are needed and .* are free"):
        cache.get("dataset", KEY, build)
    assert not Entry.of(root, "dataset", KEY).unfinished.exists()


# --- caches that cannot be written to -----------------------------------------------------------------------


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A cache with one entry that this process may only read; root may do all, so it becomes somebody else."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as undo:
        top = Path(folder)
        root = top / "cache"
        Cache(root, print, own=top).get("dataset", KEY, writes())
        (root / "notes").mkdir()
        (top / "workspace").mkdir()
        (top / "workspace").chmod(0o777)
        top.chmod(0o755)
        paths = [root, *root.rglob("*")]
        modes = {path: path.stat().st_mode for path in paths}
        undo.callback(lambda: [path.chmod(mode) for path, mode in modes.items()])
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            undo.callback(os.seteuid, 0)
            os.seteuid(65534)
        yield top


def test_of_a_read_only_cache_the_entries_are_used_and_all_else_is_built_in_the_workspace(
    read_only: Path, says: Says
) -> None:
    cache = open_cache(settings(cache_dir=str(read_only / "cache")), read_only / "workspace", says)
    assert cache.get("dataset", KEY, not_called).is_relative_to(read_only / "cache")
    for name in ("a", "b"):
        assert cache.get("dataset", {"name": name}, writes()).is_relative_to(read_only / "workspace")
    assert says.once("cannot be written to (Permission denied); what is complete there is used")
    cache.write_note({"path": "/data"}, "v1")
    assert cache.read_note({"path": "/data"}) == "v1"
    cache.close()


def test_a_broken_entry_of_a_read_only_cache_is_left_alone(read_only: Path, says: Says) -> None:
    file = Entry.of(read_only / "cache", "dataset", KEY).files / "rows"
    mine = os.geteuid()
    os.seteuid(os.getuid())
    file.chmod(0o644)
    truncate(file)
    os.seteuid(mine)
    cache = open_cache(settings(cache_dir=str(read_only / "cache")), read_only / "workspace", says)
    assert cache.get("dataset", KEY, writes()).is_relative_to(read_only / "workspace")
    assert says.once("has 50 of 100 bytes of rows; it is left alone")
    cache.close()


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def no_effect(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("flock", "words"), [(no_locks, "has no locks (flock)"), (no_effect, "has locks that hold nobody back")]
)
def test_where_there_are_no_locks_nothing_is_built_for_others(
    tmp_path: Path, root: Path, says: Says, monkeypatch: pytest.MonkeyPatch, flock: Any, words: str
) -> None:
    Cache(root, print, own=tmp_path).get("dataset", KEY, writes())
    real = fcntl.flock

    def on_this_file_system(descriptor: int, operation: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        (flock if path.is_relative_to(root) else real)(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", on_this_file_system)
    cache = open_cache(settings(cache_dir=str(root)), tmp_path / "workspace", says)
    assert cache.get("dataset", KEY, not_called).is_relative_to(root)
    assert cache.get("dataset", {"name": "a"}, writes()).is_relative_to(tmp_path / "workspace")
    assert says.once(words)


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, says: Says) -> None:
    (tmp_path / "file").touch()
    cache = open_cache(settings(cache_dir=str(tmp_path / "file")), tmp_path / "workspace", says)
    assert cache.get("dataset", KEY, writes()).is_relative_to(tmp_path / "workspace")
    assert says.once("cannot be made (File exists)")


def test_an_unknown_scheme_is_refused(tmp_path: Path, says: Says) -> None:
    with pytest.raises(BadInputError, match=r"`--cache_dir`='gs://b/c' has an unknown scheme\. Fix:"):
        open_cache(settings(cache_dir="gs://b/c"), tmp_path, says)


# --- without a cache, and notes -----------------------------------------------------------------------------


def test_without_a_cache_all_is_made_in_the_workspace_and_nothing_is_said(tmp_path: Path, says: Says) -> None:
    cache = open_cache(settings(), tmp_path, says)
    assert cache.get("dataset", KEY, writes()).is_relative_to(tmp_path)
    assert says == []


def test_a_note_is_read_by_other_runs(opened: Callable[..., Cache]) -> None:
    about = {"path": "/data", "files": "abc"}
    assert opened().read_note(about) is None
    opened().write_note(about, "sha256:1")
    assert opened().read_note(about) == "sha256:1"
    assert opened().read_note({**about, "files": "d"}) is None


def test_the_manifest_tells_people_what_the_entry_is(opened: Callable[..., Cache]) -> None:
    found = opened().get("dataset", KEY, writes())
    manifest = json.loads((found.parent / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["key"] == KEY
    assert manifest["bytes"] == SIZE
    assert manifest["files"]["rows"]["size"] == SIZE


def test_what_goes_while_it_is_counted_is_no_error(tmp_path: Path) -> None:
    """Another run renames its folder, or removes one, whenever it likes."""
    stop = threading.Event()

    def move() -> None:
        for number in itertools.cycle(range(2)):
            (tmp_path / str(number) / "files" / "deep").mkdir(parents=True, exist_ok=True)
            (tmp_path / str(number) / "files" / "deep" / "file").write_bytes(b"1234")
            shutil.rmtree(tmp_path / str(1 - number), ignore_errors=True)
            if stop.is_set():
                return

    mover = threading.Thread(target=move)
    mover.start()
    try:
        assert {size_of(tmp_path) for _ in range(2000)} <= {0, 4, 8}
    finally:
        stop.set()
        mover.join()
