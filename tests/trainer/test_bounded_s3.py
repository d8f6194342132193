"""A cache in S3 with a bound, against a real S3-protocol server on loopback; nothing here needs torch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from llmtune_trainer import cache_s3
from llmtune_trainer.cache import open_cache
from llmtune_trainer.cache_entry import Entry
from llmtune_trainer.cache_s3 import CacheInS3
from llmtune_trainer.eviction_s3 import DEAD_SECONDS, GRACE_SECONDS, MARK_SECONDS
from llmtune_trainer.object_store import delete_objects
from llmtune_trainer.settings import Settings
from s3_server import S3

SIZE = 10_000
# An entry has a manifest, too.
ROOM = SIZE + 1000
PLACE = "s3://llm/cache"
LONG = GRACE_SECONDS + 60


class Runs:
    """Runs on nodes of their own: each makes or reads one entry."""

    def __init__(self, s3: S3, folder: Path) -> None:
        self.s3 = s3
        self.folder = folder
        self.client = boto3.client("s3")
        self.says: list[str] = []
        self.made: list[str] = []

    def use(self, name: str, max_bytes: int | None = None) -> None:
        def build(folder: Path) -> None:
            self.made.append(name)
            (folder / "rows").write_text(name * SIZE, encoding="utf-8")
            (folder / "report").touch()

        settings = Settings(model_name_or_path="-", dataset_name="-", cache_dir=PLACE, cache_max_bytes=max_bytes)
        node = self.folder / os.urandom(4).hex()
        with closing(open_cache(settings, node, self.says.append)) as cache:
            found = cache.get("prepared", {"name": name}, build)
            assert (found / "rows").read_text(encoding="utf-8") == name * SIZE

    def make(self, *names: str) -> None:
        """Make entries that nobody uses any more, the first longest ago."""
        for name in names:
            self.use(name)
            self.s3.age("llm", LONG, "cache/")

    def put(self, key: str, content: bytes = b"x" * SIZE) -> str:
        self.client.put_object(Bucket="llm", Key=f"cache/{key}", Body=content)
        return key

    def stored(self, below: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket="llm", Prefix=f"cache/{below}").get("Contents", [])
        return [item["Key"].removeprefix("cache/") for item in found]

    def kept(self, *names: str) -> str:
        return "".join(name for name in names if self.stored(entry(name)))


def entry(name: str) -> str:
    return Entry.of(Path(), "prepared", {"name": name}).name


@pytest.fixture
def runs(s3: S3, tmp_path: Path) -> Runs:
    return Runs(s3, tmp_path)


def test_the_longest_unused_goes_first_and_no_more_than_must(runs: Runs) -> None:
    runs.make("a", "b", "c")
    runs.use("d", max_bytes=3 * ROOM)
    assert runs.kept(*"abcd") == "bcd"
    assert [line for line in runs.says if f"{entry('a')} is evicted: 10." in line and "the longest unused" in line]


def test_use_makes_young(runs: Runs) -> None:
    runs.make("a", "b", "c")
    runs.use("a")
    runs.s3.age("llm", LONG, "cache/")
    runs.use("d", max_bytes=3 * ROOM)
    assert runs.kept(*"abcd") == "acd"


def test_a_mark_is_written_once_an_hour(runs: Runs) -> None:
    def marks() -> list[str]:
        return [request for request in runs.s3.requests if request.endswith("/used") and request.startswith("PUT")]

    for hours, written in [(0, 0), (0, 0), (1, 1), (0, 1), (1, 2)]:
        runs.s3.age("llm", hours * MARK_SECONDS + 1, "cache/")
        runs.use("a")
        assert len(marks()) == written
    assert runs.made == ["a"]


def test_what_somebody_may_still_read_stays_whatever_the_bound(runs: Runs) -> None:
    runs.make("a", "b")
    runs.use("b")  # leaves a mark
    runs.s3.age("llm", GRACE_SECONDS - 60, "cache/")
    runs.use("c", max_bytes=ROOM)
    assert runs.kept(*"abc") == "bc"
    runs.s3.age("llm", 120, "cache/")
    runs.use("d", max_bytes=ROOM)
    assert runs.kept(*"abcd") == "cd"


def test_the_manifest_goes_before_the_files_and_the_bucket_is_listed_once(runs: Runs) -> None:
    runs.make("a")
    runs.s3.requests.clear()
    runs.use("b", max_bytes=ROOM)
    deleted = [request.split("/")[-1] for request in runs.s3.requests if f"DELETE /llm/cache/{entry('a')}" in request]
    assert deleted[0] == "manifest.json"
    assert sorted(deleted[1:]) == ["report", "rows"]
    # The bucket whole, and what is to go once more.
    assert runs.s3.requests.count("GET /llm") == 2


def test_what_somebody_begins_to_read_while_others_go_stays(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete(*args: Any, **options: Any) -> None:
        delete_objects(*args, **options)
        runs.use("b")  # leaves a mark, long after the bucket was listed

    runs.make("a", "b")
    monkeypatch.setattr("llmtune_trainer.eviction_s3.delete_objects", delete)
    runs.use("c", max_bytes=ROOM)
    assert runs.kept(*"abc") == "bc"
    assert runs.made == ["a", "b", "c"]


def test_an_entry_larger_than_the_bound_is_told_and_stored(runs: Runs) -> None:
    runs.use("a", max_bytes=SIZE // 2)
    assert runs.kept("a") == "a"
    assert [line for line in runs.says if "alone is larger than --cache_max_bytes (4.9 KiB)" in line]


def test_without_a_bound_nothing_goes_and_nothing_is_listed(runs: Runs) -> None:
    runs.make("a")
    runs.s3.age("llm", 100 * DEAD_SECONDS)
    runs.s3.requests.clear()
    runs.use("b")
    assert "GET /llm" not in runs.s3.requests
    assert runs.kept(*"ab") == "ab"


# --- what dead writers left ---------------------------------------------------------------------------------


def test_what_dead_writers_left_goes_after_a_day(runs: Runs) -> None:
    runs.make("a")
    without_manifest = runs.put(f"model/{'0' * 32}/{'1' * 32}/weights")
    lease = runs.put(f"model/{'0' * 32}/building", b"")
    beside_a_manifest = runs.put(f"{entry('a')}/{'2' * 32}/rows")
    runs.s3.age("llm", DEAD_SECONDS - 60, "cache/")
    runs.use("b", max_bytes=100 * ROOM)
    assert {without_manifest, lease, beside_a_manifest} <= {*runs.stored()}
    runs.s3.age("llm", 120, "cache/")
    runs.use("c", max_bytes=100 * ROOM)
    assert not {without_manifest, lease, beside_a_manifest} & {*runs.stored()}
    runs.use("a")
    assert runs.made == ["a", "b", "c"]


def test_a_writer_that_still_writes_is_left_alone(runs: Runs) -> None:
    upload = runs.put(f"model/{'0' * 32}/{'1' * 32}/weights")
    runs.s3.age("llm", DEAD_SECONDS + 60, "cache/")
    runs.put(f"model/{'0' * 32}/building", b"a beat")
    runs.use("a", max_bytes=ROOM)
    assert upload in runs.stored()


@pytest.mark.parametrize("torn", [b"{", b"\xff\xfe{"])
def test_where_no_writer_is_named_none_is_taken_for_dead(runs: Runs, torn: bytes) -> None:
    runs.make("a")
    runs.put(f"{entry('a')}/manifest.json", torn)
    other = runs.put(f"{entry('a')}/{'2' * 32}/rows")
    runs.s3.age("llm", DEAD_SECONDS + 60, "cache/")
    runs.use("b", max_bytes=100 * ROOM)
    assert other in runs.stored()


def test_what_others_keep_at_the_prefix_is_theirs(runs: Runs) -> None:
    runs.make("a")
    theirs = {
        runs.put(key)
        for key in (
            "notes/abc",
            f"{entry('a')}/README.md",
            f"12/{'0' * 32}/artifacts/model",
            f"model/{'0' * 32}/artifacts/model",
            "model/weights",
        )
    }
    runs.s3.age("llm", 100 * DEAD_SECONDS)
    runs.use("b", max_bytes=1)
    assert theirs <= {*runs.stored()}
    assert runs.stored(entry("a")) == [f"{entry('a')}/README.md"]


# --- while others read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name"),
    [(CacheInS3, "_mark_as_used"), (CacheInS3, "_download"), (cache_s3, "list_objects"), (cache_s3, "download")],
)
def test_a_reader_whose_entry_goes_away_makes_it_itself(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """The grace is over, and another run evicts it between two steps of the reader."""
    runs.make("a")
    step = getattr(owner, name)

    def evicted_first(*arguments: Any) -> Any:
        monkeypatch.setattr(owner, name, step)
        runs.s3.age("llm", LONG, "cache/")
        runs.use("b", max_bytes=1)
        assert runs.kept(*"ab") == "b"
        return step(*arguments)

    monkeypatch.setattr(owner, name, evicted_first)
    runs.use("a")
    runs.use("a")
    assert runs.made == ["a", "b", "a"]


def test_a_run_goes_on_when_it_may_not_delete(runs: Runs) -> None:
    runs.make("a")
    runs.s3.refusals["DELETE /llm/cache"] = (403, "AccessDenied")
    runs.use("b", max_bytes=1)
    assert runs.kept(*"ab") == "ab"
    assert [line for line in runs.says if "it could not be brought within --cache_max_bytes: `--cache_dir`=" in line]


def test_who_may_not_write_reads_all_the_same(runs: Runs) -> None:
    runs.make("a")
    runs.s3.refusals["PUT /llm/cache"] = (403, "AccessDenied")
    runs.use("a")
    assert runs.made == ["a"]


def test_many_runs_under_a_bound_that_spares_nobody_all_read_right(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each store evicts all that others are storing and reading."""
    monkeypatch.setattr("llmtune_trainer.eviction_s3.GRACE_SECONDS", -10.0)
    monkeypatch.setattr("llmtune_trainer.cache_s3.POLL_SECONDS", 0.01)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: runs.use("abc"[number % 3], max_bytes=1), range(24)))
    assert len(runs.made) > 3
    assert [line for line in runs.says if "is evicted" in line]
