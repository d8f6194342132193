"""The state directory's file: what is in it after a reopen, and what is told when it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, KINDS, POD, SECRET
from airflow_llmtune.controlplane.state.database import FILE, Database
from airflow_llmtune.controlplane.state.errors import StateError
from airflow_llmtune.controlplane.state.identity import new_identity
from airflow_llmtune.controlplane.state.journals import SqliteJournal
from airflow_llmtune.controlplane.state.kept import DurableState, state_of
from airflow_llmtune.controlplane.store import CompactedError, KeyAbsentError, KeyExistsError, Store


def obj(**data: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "u", "finalizers": ["f"]}, "data": data}


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Store]:
    with closing(Database(folder)) as database:
        yield Store(journal=SqliteJournal(database), **options)


def contents(store: Store) -> dict[str, list[tuple[Any, int, bytes]]]:
    return {str(kind): [(one.key, one.revision, one.raw) for one in store.scan(kind)] for kind in KINDS}


def test_a_reopened_store_has_every_object_as_it_was_and_goes_on_counting(tmp_path: Path) -> None:
    with opened(tmp_path, first_revision=1000) as store:
        store.create(SECRET, "n", "kept", obj(text="ä\u2028"))
        store.create(POD, "m", "changed", obj(v=1))
        store.update(POD, "m", "changed", obj(v=2))
        store.create(CONFIG_MAP, "n", "gone", obj())
        store.delete(CONFIG_MAP, "n", "gone")
        before = contents(store)
    with opened(tmp_path, first_revision=7) as store:
        assert contents(store) == before
        # The deletion had the largest number, and no object tells it any more.
        assert store.revision == 1005
        assert store.create(CONFIG_MAP, "n", "gone", obj()).revision == 1006


def test_who_has_seen_the_newest_revision_goes_on_after_a_reopen_and_others_do_not(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        old = store.create(SECRET, "n", "a", obj()).revision
        newest = store.create(SECRET, "n", "b", obj()).revision
    with opened(tmp_path) as store:
        with pytest.raises(CompactedError):
            store.subscribe(SECRET, old)
        subscription = store.subscribe(SECRET, newest)
        store.delete(SECRET, "n", "a")
        assert [(change.entry.key[1], change.deleted) for change in subscription.read()] == [("a", True)]


def test_a_custom_kind_finds_its_objects_however_its_short_names_change(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.create(POD, "n", "a", obj())
    with opened(tmp_path) as store:
        assert store.get(POD, "n", "a") is not None
        assert store.get(replace(POD, short_names=("other",)), "n", "a") is not None


_ACTIONS = st.tuples(
    st.sampled_from(["create", "update", "delete", "reopen"]),
    st.sampled_from([SECRET, CONFIG_MAP]),
    st.sampled_from(["a", "b", "c"]),
    st.text(max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_ACTIONS, max_size=25))
def test_a_store_that_is_reopened_at_any_time_is_the_same_as_one_in_memory(actions: list[Any]) -> None:
    memory = Store()
    with TemporaryDirectory() as folder:
        database = Database(Path(folder))
        durable = Store(journal=SqliteJournal(database))
        for verb, kind, name, text in actions:
            if verb == "reopen":
                database.close()
                database = Database(Path(folder))
                durable = Store(journal=SqliteJournal(database))
                continue
            results = [attempt(store, verb, kind, name, text) for store in (memory, durable)]
            assert results[0] == results[1]
        assert contents(durable) == contents(memory)
        assert durable.revision == memory.revision
        database.close()


def attempt(store: Store, verb: str, kind: Any, name: str, text: str) -> Any:
    arguments = () if verb == "delete" else (obj(text=text),)
    try:
        return getattr(store, verb)(kind, "n", name, *arguments).raw
    except (KeyExistsError, KeyAbsentError) as error:
        return type(error)


def test_a_write_that_finds_no_room_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with closing(Database(tmp_path)) as database:
        store = Store(journal=SqliteJournal(database))
        store.create(SECRET, "n", "a", obj())
        subscription = store.subscribe(SECRET)
        before, revision = contents(store), store.revision
        database.read("PRAGMA max_page_count = 8")
        for write in (
            lambda: store.create(SECRET, "n", "b", obj(text="x" * 50_000)),
            lambda: store.update(SECRET, "n", "a", obj(text="x" * 50_000)),
        ):
            with pytest.raises(ApiError) as refused:
                write()
            assert (refused.value.code, refused.value.reason) == (507, "InsufficientStorage")
            assert f"state directory {tmp_path}: database or disk is full; nothing was changed" in str(refused.value)
        assert (contents(store), store.revision, subscription.read()) == (before, revision, [])
        database.read("PRAGMA max_page_count = 1000000")
        assert store.create(SECRET, "n", "b", obj(text="x" * 50_000)).revision == revision + 1


async def test_once_there_is_room_again_everybody_who_follows_looks_anew(tmp_path: Path) -> None:
    with state_of(tmp_path, "127.0.0.1", new_identity("127.0.0.1")) as state:
        assert isinstance(state, DurableState)
        store = Store(journal=state.objects)
        maintaining = asyncio.create_task(state.maintain(store))
        subscription = store.subscribe(SECRET)
        state._database.read("PRAGMA max_page_count = 8")
        with pytest.raises(ApiError):
            store.create(SECRET, "n", "a", obj(text="x" * 50_000))
        assert await subscription.wait(1.5) is False
        state._database.read("PRAGMA max_page_count = 1000000")
        assert await subscription.wait(5) is True
        with pytest.raises(CompactedError):
            subscription.read()
        # Who lists now and watches from there misses nothing.
        assert store.subscribe(SECRET, store.revision).read() == []
        maintaining.cancel()
        await asyncio.gather(maintaining, return_exceptions=True)


async def test_what_was_logged_is_moved_into_the_file_in_the_background(tmp_path: Path) -> None:
    with closing(Database(tmp_path)) as database:
        store = Store(journal=SqliteJournal(database))
        moving = asyncio.create_task(database.checkpoint_when_due())
        before = database.path.stat().st_size
        for index in range(60):
            store.create(SECRET, "n", f"s{index}", obj(text="x" * 100_000))
        async with asyncio.timeout(10):
            while database.path.stat().st_size < before + 4_000_000:
                await asyncio.sleep(0.01)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_its_files_are_for_the_owner_only(tmp_path: Path) -> None:
    (tmp_path / FILE).touch(mode=0o666)
    with opened(tmp_path) as store:
        store.create(SECRET, "n", "a", obj())
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == [FILE, f"{FILE}-shm", f"{FILE}-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("PRAGMA user_version = 7", "has schema version 7, and this control plane reads version 1 only: start the"),
        ("PRAGMA application_id = 5", "is none of a control plane's.*choose another state directory, or move the file"),
    ],
)
def test_a_file_of_another_program_or_version_is_refused_with_what_to_do(
    tmp_path: Path, spoil: str, message: str
) -> None:
    Database(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(spoil)
    with pytest.raises(StateError, match=message):
        Database(tmp_path)


def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for index in range(50):
            store.create(SECRET, "n", f"s{index}", obj(text="x" * 1000))
    path = tmp_path / FILE
    whole = path.read_bytes()
    for damaged in (b"no database", whole[: len(whole) // 2], whole[:8192] + b"\xff" * 4096 + whole[12288:]):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=r"if the file is damaged, put a copy of it back, or move it and .* away"):
            Database(tmp_path)
    path.write_bytes(whole)
    with opened(tmp_path) as store:
        assert len(list(store.scan(SECRET))) == 50
