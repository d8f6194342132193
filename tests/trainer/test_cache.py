"""Sources in S3 and the cache in S3, against a real S3-protocol server on loopback; nothing here needs torch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from llmtune_trainer.cache import Cache, CacheFullError, open_cache
from llmtune_trainer.cache_entry import Entry
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.lease import Lease
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import Fetched, fetch_dataset, fetch_model
from s3_server import S3

DATA = {"train.jsonl": b'{"text": "a"}\n', "more/eval.jsonl": b'{"text": "b"}\n'}
SOURCE = "s3://llm/data"

USER = """
import sys
from pathlib import Path
from llmtune_trainer.cache import Cache
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import fetch_dataset
root, go = map(Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists():
    pass
settings = Settings(model_name_or_path="-", dataset_name="s3://llm/data")
print((fetch_dataset(settings, Cache(root, print, own=root / "own")).path / "train.jsonl").read_text())
"""


@pytest.fixture
def s3(s3: S3) -> S3:
    """With data in it."""
    put(DATA)
    s3.requests.clear()
    return s3


def client() -> Any:
    return _client(os.environ["AWS_ENDPOINT_URL"])


@lru_cache(maxsize=1)
def _client(_: str) -> Any:
    # Without being told, boto3 adds a checksum of its own, which many stores do not know.
    return boto3.client("s3", config=Config(request_checksum_calculation="when_required"))


def put(files: dict[str, bytes], prefix: str = "data", **options: str) -> None:
    for name, content in files.items():
        client().put_object(Bucket="llm", Key=f"{prefix}/{name}", Body=content, **options)


def keys(prefix: str = "") -> list[str]:
    return [item["Key"] for item in client().list_objects_v2(Bucket="llm", Prefix=prefix).get("Contents", [])]


@pytest.fixture
def says() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, says: list[str]) -> Iterator[Callable[..., Cache]]:
    caches: list[Cache] = []

    def make(cache_dir: str | None = None) -> Cache:
        workspace = tmp_path / f"workspace-{len(caches)}"
        settings = of(cache_dir=cache_dir or str(tmp_path / "cache"))
        caches.append(open_cache(settings, workspace, says.append))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def of(data: str = SOURCE, model: str = "-", **others: Any) -> Settings:
    return Settings(model_name_or_path=model, dataset_name=data, **others)


def contents(fetched: Fetched) -> dict[str, bytes]:
    files = (file for file in fetched.path.rglob("*") if file.is_file())
    return {file.relative_to(fetched.path).as_posix(): file.read_bytes() for file in files}


# --- from S3 ------------------------------------------------------------------------------------------------


def test_a_prefix_comes_whole_and_once(s3: S3, opened: Callable[..., Cache]) -> None:
    put({"": b"", "train.jsonl": b"not json"}, "data-old")
    put({"": b"", "more/": b""})  # as consoles mark folders
    first = fetch_dataset(of(), opened())
    assert contents(first) == DATA
    assert first.revision is None
    s3.requests.clear()
    assert fetch_dataset(of(SOURCE + "/"), opened()) == first
    assert s3.requests == ["GET /llm"]  # the listing, for the ETags


def test_one_object_is_a_file(s3: S3, opened: Callable[..., Cache]) -> None:
    found = fetch_dataset(of(f"{SOURCE}/train.jsonl"), opened())
    assert found.path.name == "train.jsonl"
    assert found.path.read_bytes() == DATA["train.jsonl"]


def test_another_content_is_another_version(s3: S3, opened: Callable[..., Cache]) -> None:
    first = fetch_dataset(of(), opened())
    put({"train.jsonl": b"{}"})
    second = fetch_dataset(of(), opened())
    assert first.version != second.version
    assert contents(first)["train.jsonl"] != contents(second)["train.jsonl"] == b"{}"
    put(DATA)
    assert fetch_dataset(of(), opened()) == first


def test_eight_first_users_make_one_download(s3: S3, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", USER, str(tmp_path / "cache"), str(tmp_path / "go")]
    users = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    try:
        for user in users:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
        (tmp_path / "go").touch()
        answers = [user.communicate(timeout=90)[0] for user in users]
    finally:
        for user in users:
            user.kill()
            user.communicate()
    assert all('{"text": "a"}' in answer for answer in answers)
    assert sorted(s3.downloads()) == ["/llm/data/more/eval.jsonl", "/llm/data/train.jsonl"]


def test_large_objects_come_in_parts_and_are_checked(
    s3: S3, opened: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1000) * 12_000
    (tmp_path / "large").write_bytes(content)
    client().upload_file(str(tmp_path / "large"), "llm", "data/large.bin")  # in parts: its ETag is no MD5
    monkeypatch.setattr("llmtune_trainer.object_store.PART_BYTES", 5 * 2**20)
    s3.requests.clear()
    found = fetch_dataset(of(), opened())
    assert hashlib.sha256((found.path / "large.bin").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert s3.downloads().count("/llm/data/large.bin") == 3


def test_an_object_that_was_damaged_on_the_way_is_read_again(s3: S3, opened: Callable[..., Cache]) -> None:
    s3.damages["/llm/data/train.jsonl"] = 1
    assert contents(fetch_dataset(of(), opened())) == DATA
    assert s3.downloads().count("/llm/data/train.jsonl") == 2
    assert s3.downloads().count("/llm/data/more/eval.jsonl") == 1


def test_an_object_that_is_always_damaged_ends_the_run(s3: S3, opened: Callable[..., Cache]) -> None:
    s3.damages["/llm/data/train.jsonl"] = 9
    with pytest.raises(TrainerError, match=r"read twice and is damaged: train\.jsonl has another MD5.*Fix:"):
        fetch_dataset(of(), opened())


def test_the_checksum_that_s3_keeps_is_what_counts(s3: S3, opened: Callable[..., Cache]) -> None:
    put({"train.jsonl": DATA["train.jsonl"]}, ChecksumAlgorithm="SHA256", ServerSideEncryption="aws:kms")
    s3.damages["/llm/data/train.jsonl"] = 9
    with pytest.raises(TrainerError, match=r"train\.jsonl has another sha256 than S3 gives"):
        fetch_dataset(of(), opened())


def test_files_that_a_predecessor_completed_are_kept(s3: S3, opened: Callable[..., Cache]) -> None:
    s3.refusals["GET /llm/data/train.jsonl"] = (403, "AccessDenied")
    with pytest.raises(BadInputError, match=r"was refused: AccessDenied"):
        fetch_dataset(of(), opened())
    s3.refusals.clear()
    s3.requests.clear()
    assert contents(fetch_dataset(of(), opened())) == DATA
    assert s3.downloads() == ["/llm/data/train.jsonl"]


def test_data_that_does_not_fit_is_refused_before_it_is_read(
    s3: S3, opened: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"total": 100, "free": 10})())
    with pytest.raises(CacheFullError, match=r"28 bytes more are needed and 10 bytes are free"):
        fetch_dataset(of(), opened())
    assert s3.downloads() == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "AccessDenied"), r"AccessDenied\. Fix: correct the AWS_\* credentials .*`aws_conn_id`.*allow them"),
        ((400, "ExpiredToken"), r"ExpiredToken: the credentials are no longer valid\. Fix: renew the AWS_\*"),
        ((412, "PreconditionFailed"), r"an object was changed or deleted while it was read\. Fix: run it again"),
    ],
)
def test_a_refused_object_names_flag_and_secret(
    s3: S3, opened: Callable[..., Cache], refusal: tuple[int, str], words: str
) -> None:
    s3.refusals["GET /llm/data/train.jsonl"] = refusal
    with pytest.raises(BadInputError, match=rf"`--dataset_name`='s3://llm/data' was refused: .*{words}") as raised:
        fetch_dataset(of(), opened())
    assert "a-secret-key" not in str(raised.value)


def test_an_object_that_changes_while_it_is_read_is_refused(
    s3: S3, opened: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(folder: Path, size: int) -> None:
        put({"train.jsonl": b'{"text": "c"}\n'})  # after the listing, and as long

    cache = opened()
    monkeypatch.setattr(cache, "make_room", change)
    with pytest.raises(BadInputError, match="changed or deleted while it was read"):
        fetch_dataset(of(), cache)


# --- the cache in S3 ----------------------------------------------------------------------------------------

PLACE = "s3://llm/cache"


def test_what_one_node_made_another_reads(s3: S3, opened: Callable[..., Cache]) -> None:
    def build(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "rows").write_text("x", encoding="utf-8")
        (folder / "none").touch()

    key = {"data": "1"}
    opened(PLACE).get("prepared", key, build)
    other = opened(PLACE).get("prepared", key, lambda _: pytest.fail("it is there already"))
    assert (other / "sub" / "rows").read_text(encoding="utf-8") == "x"
    assert (other / "none").is_file()


def test_notes_are_shared_too(s3: S3, opened: Callable[..., Cache]) -> None:
    assert opened(PLACE).read_note({"of": 1}) is None
    opened(PLACE).write_note({"of": 1}, "v1")
    assert opened(PLACE).read_note({"of": 1}) == "v1"


def use_at_once(caches: list[Cache], build: Callable[[Path], None]) -> list[str]:
    """Return what each of them read."""
    found: list[str] = []
    together = threading.Barrier(len(caches))

    def use(cache: Cache) -> None:
        together.wait(timeout=30)
        found.append((cache.get("prepared", {}, build) / "rows").read_text(encoding="utf-8"))

    users = [threading.Thread(target=use, args=(cache,)) for cache in caches]
    for user in users:
        user.start()
    for user in users:
        user.join(timeout=60)
    return found


def names() -> list[str]:
    return sorted(key.split("/")[-1] for key in keys("cache"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtune_trainer.lease.BEAT_SECONDS", 0.05)
    monkeypatch.setattr("llmtune_trainer.lease.PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr("llmtune_trainer.cache_s3.POLL_SECONDS", 0.05)


def test_of_eight_first_users_on_eight_nodes_one_builds(s3: S3, opened: Callable[..., Cache], hasty: None) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(3)  # longer than the others' patience, were there no beats
        (folder / "rows").write_text("right", encoding="utf-8")

    assert use_at_once([opened(PLACE) for _ in range(8)], build) == ["right"] * 8
    assert len(built) == 1
    assert names() == ["manifest.json", "rows"]


def test_the_lease_of_a_dead_builder_is_taken_over_by_one(s3: S3, opened: Callable[..., Cache], hasty: None) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "rows").write_text("right", encoding="utf-8")

    place = Entry.of(Path(), "prepared", {}).name
    client().put_object(Bucket="llm", Key=f"cache/{place}/building", Body=b"of a dead builder")
    assert use_at_once([opened(PLACE) for _ in range(3)], build) == ["right"] * 3
    assert len(built) == 1
    assert names() == ["manifest.json", "rows"]


def test_an_entry_that_is_finished_while_the_lease_is_taken_is_read(
    s3: S3, opened: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Lease.try_to_take

    def take_late(self: Lease) -> bool:
        monkeypatch.setattr(Lease, "try_to_take", take)
        opened(PLACE).get("prepared", {}, lambda folder: (folder / "rows").touch())
        return take(self)

    monkeypatch.setattr(Lease, "try_to_take", take_late)
    assert opened(PLACE).get("prepared", {}, lambda _: pytest.fail("it is there already")).is_dir()
    assert names() == ["manifest.json", "rows"]


def test_a_builder_that_fails_leaves_the_lease_to_the_next(s3: S3, opened: Callable[..., Cache]) -> None:
    with pytest.raises(ZeroDivisionError):
        opened(PLACE).get("prepared", {}, lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    assert names() == []
    assert opened(PLACE).get("prepared", {}, lambda folder: (folder / "rows").touch()).is_dir()


@pytest.fixture
def without_conditions(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A store that refuses conditional writes, or does not heed them."""
    from llmtune_trainer import object_store

    connect = object_store.connect

    def arrange(manner: str) -> None:
        def old_store() -> Any:
            real = connect()

            def put_object(IfNoneMatch: str | None = None, IfMatch: str | None = None, **options: Any) -> Any:  # noqa: N803
                if manner == "refuses" and (IfNoneMatch or IfMatch):
                    raise real.exceptions.ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")
                return real.put_object(**options)

            return SimpleNamespace(
                **{name: getattr(real, name) for name in dir(real) if not name.startswith("_")}
                | {"put_object": put_object}
            )

        monkeypatch.setattr(object_store, "connect", old_store)

    return arrange


@pytest.mark.parametrize("manner", ["refuses", "ignores"])
def test_where_a_store_knows_no_conditions_each_builds_and_all_read_right(
    s3: S3, opened: Callable[..., Cache], hasty: None, without_conditions: Callable[[str], None], manner: str
) -> None:
    without_conditions(manner)
    all_build = threading.Barrier(3)

    def build(folder: Path) -> None:
        all_build.wait(timeout=30)
        (folder / "rows").write_text("right", encoding="utf-8")

    assert use_at_once([opened(PLACE) for _ in range(3)], build) == ["right"] * 3
    late = opened(PLACE).get("prepared", {}, lambda _: pytest.fail("it is there already"))
    assert (late / "rows").read_text(encoding="utf-8") == "right"


def lose(manifest: str, rows: str) -> None:
    client().delete_object(Bucket="llm", Key=rows)


def alter(manifest: str, rows: str) -> None:
    client().put_object(Bucket="llm", Key=rows, Body=b"wrong")


def tear(manifest: str, rows: str) -> None:
    client().put_object(Bucket="llm", Key=manifest, Body=b"{")


@pytest.mark.parametrize("harm", [lose, alter, tear])
def test_a_broken_entry_is_told_and_replaced(
    s3: S3, opened: Callable[..., Cache], says: list[str], harm: Callable[[str, str], None]
) -> None:
    def build(folder: Path) -> None:
        (folder / "rows").write_text("right", encoding="utf-8")

    opened(PLACE).get("prepared", {}, build)
    manifest, rows = sorted(keys("cache"), key=lambda key: not key.endswith("manifest.json"))
    harm(manifest, rows)
    assert (opened(PLACE).get("prepared", {}, build) / "rows").read_text(encoding="utf-8") == "right"
    assert any(line.endswith("It is made again") for line in says)
    third = opened(PLACE).get("prepared", {}, lambda _: pytest.fail("it was replaced"))
    assert (third / "rows").read_text(encoding="utf-8") == "right"


def test_a_run_goes_on_when_it_may_not_share(s3: S3, opened: Callable[..., Cache], says: list[str]) -> None:
    s3.refusals["PUT /llm/cache"] = (403, "AccessDenied")
    assert (opened(PLACE).get("prepared", {}, lambda folder: (folder / "rows").touch()) / "rows").is_file()
    assert any("could not be stored for other runs: `--cache_dir`=" in line for line in says)


def test_a_cache_in_a_bucket_that_is_not_there_is_told(s3: S3, opened: Callable[..., Cache]) -> None:
    with pytest.raises(BadInputError, match=r"`--cache_dir`='s3://no-such-bucket/x/.*there is no such bucket"):
        opened("s3://no-such-bucket/x").get("prepared", {}, lambda _: None)


# --- what lies here -----------------------------------------------------------------------------------------


def test_a_model_that_is_incomplete_in_s3_is_told(s3: S3, opened: Callable[..., Cache]) -> None:
    put({"config.json": b"{}"}, "model")
    with pytest.raises(BadInputError, match=r"'s3://llm/model' has no weights .*, no a tokenizer"):
        fetch_model(of(model="s3://llm/model"), opened())
