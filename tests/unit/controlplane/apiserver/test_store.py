"""The store, in memory and on a database alike: numbering, copies, order, history, snapshots and subscriptions."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, SECRET
from airflow_llmtune.controlplane.state.database import Database
from airflow_llmtune.controlplane.state.journals import SqliteJournal
from airflow_llmtune.controlplane.store import CompactedError, Key, KeyAbsentError, KeyExistsError, Store

NewStore = Callable[..., Store]


@pytest.fixture(params=["memory", "database"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """One store per test, made with the arguments that it needs."""
    if request.param == "memory":
        yield Store
        return
    with closing(Database(tmp_path)) as database:
        yield lambda **options: Store(**options, journal=SqliteJournal(database))


def obj(**data: Any) -> dict[str, Any]:
    return {"metadata": {}, "data": data}


def names(entries: Any) -> list[Key]:
    return [entry.key for entry in entries]


def test_every_write_gets_the_next_revision_of_one_counter(new_store: NewStore) -> None:
    store = new_store()
    first = store.create(CONFIG_MAP, "n", "a", obj())
    second = store.create(SECRET, "n", "a", obj())
    third = store.update(CONFIG_MAP, "n", "a", obj(x=1))
    fourth = store.delete(CONFIG_MAP, "n", "a")
    assert [entry.revision for entry in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert fourth.view["metadata"]["resourceVersion"] == "4"
    assert store.revision == 4


def test_a_store_may_start_above_the_numbers_of_an_earlier_one(new_store: NewStore) -> None:
    store = new_store(first_revision=1000)
    assert store.create(CONFIG_MAP, "n", "a", obj()).revision == 1001
    with pytest.raises(CompactedError, match=r"too old resource version: 7 \(1000\)"):
        store.subscribe(CONFIG_MAP, 7)
    store.subscribe(CONFIG_MAP, 1000)


def test_what_is_handed_out_and_in_can_be_changed_without_harm(new_store: NewStore) -> None:
    store = new_store()
    given = obj(x=[1])
    entry = store.create(CONFIG_MAP, "n", "a", given)
    given["data"]["x"].append(2)
    copy = entry.copy()
    copy["data"]["x"].append(3)
    found = store.get(CONFIG_MAP, "n", "a")
    assert found is not None
    assert found.copy()["data"] == {"x": [1]}
    assert "resourceVersion" not in given["metadata"]


def test_create_refuses_a_taken_key_and_the_others_an_absent_one(new_store: NewStore) -> None:
    store = new_store()
    store.create(CONFIG_MAP, "n", "a", obj())
    with pytest.raises(KeyExistsError):
        store.create(CONFIG_MAP, "n", "a", obj())
    with pytest.raises(KeyAbsentError):
        store.update(CONFIG_MAP, "n", "b", obj())
    with pytest.raises(KeyAbsentError):
        store.delete(CONFIG_MAP, "m", "a")
    assert store.get(CONFIG_MAP, "n", "b") is None
    assert store.revision == 1


def test_numbers_that_json_does_not_know_are_refused(new_store: NewStore) -> None:
    store = new_store()
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.create(CONFIG_MAP, "n", "a", obj(x=float("nan")))


def test_scans_are_in_order_of_namespace_and_name(new_store: NewStore) -> None:
    store = new_store()
    for namespace, name in (("b", "z"), ("a", "y"), ("b", "a"), ("a-b", "c"), ("", "root")):
        store.create(CONFIG_MAP, namespace, name, obj())
    assert names(store.scan(CONFIG_MAP)) == [("", "root"), ("a", "y"), ("a-b", "c"), ("b", "a"), ("b", "z")]
    assert names(store.scan(CONFIG_MAP, "b")) == [("b", "a"), ("b", "z")]
    assert names(store.scan(CONFIG_MAP, "a")) == [("a", "y")]
    assert names(store.scan(CONFIG_MAP, "none")) == []
    assert names(store.scan(CONFIG_MAP, "b", after=("b", "a"))) == [("b", "z")]
    assert names(store.scan(CONFIG_MAP, after=("a", "zz"))) == [("a-b", "c"), ("b", "a"), ("b", "z")]
    store.delete(CONFIG_MAP, "b", "a")
    assert names(store.scan(CONFIG_MAP, "b")) == [("b", "z")]


def test_a_scan_at_an_earlier_revision_shows_what_was(new_store: NewStore) -> None:
    store = new_store()
    store.create(CONFIG_MAP, "n", "kept", obj())
    store.create(CONFIG_MAP, "n", "changed", obj(v="old"))
    store.create(CONFIG_MAP, "n", "deleted", obj())
    then = store.create(CONFIG_MAP, "m", "elsewhere", obj()).revision
    store.update(CONFIG_MAP, "n", "changed", obj(v="new"))
    store.update(CONFIG_MAP, "n", "changed", obj(v="newer"))
    store.delete(CONFIG_MAP, "n", "deleted")
    store.create(CONFIG_MAP, "n", "added", obj())
    entries = store.scan_at(CONFIG_MAP, then, "n")
    assert names(entries) == [("n", "changed"), ("n", "deleted"), ("n", "kept")]
    assert entries[0].view["data"] == {"v": "old"}
    assert len(store.scan_at(CONFIG_MAP, then)) == 4
    assert names(store.scan_at(CONFIG_MAP, store.revision, "n")) == names(store.scan(CONFIG_MAP, "n"))


def test_a_subscription_reads_what_came_after_its_revision(new_store: NewStore) -> None:
    store = new_store()
    first = store.create(CONFIG_MAP, "n", "a", obj())
    store.create(CONFIG_MAP, "n", "b", obj())
    store.create(SECRET, "n", "s", obj())
    since_first = store.subscribe(CONFIG_MAP, first.revision)
    from_now = store.subscribe(CONFIG_MAP)
    store.delete(CONFIG_MAP, "n", "a")
    assert [(change.entry.key[1], change.deleted) for change in since_first.read()] == [("b", False), ("a", True)]
    assert [change.entry.key[1] for change in from_now.read()] == ["a"]
    assert since_first.read() == []


def test_a_change_carries_the_state_before_it(new_store: NewStore) -> None:
    store = new_store()
    subscription = store.subscribe(CONFIG_MAP)
    old = store.create(CONFIG_MAP, "n", "a", obj(v=1))
    new = store.update(CONFIG_MAP, "n", "a", obj(v=2))
    store.delete(CONFIG_MAP, "n", "a", obj(v=3))
    created, updated, deleted = subscription.read()
    assert (created.previous, updated.previous, deleted.previous) == (None, old, new)
    assert deleted.entry.view["data"] == {"v": 3}


def test_history_is_bounded_and_the_forgotten_part_is_refused(new_store: NewStore) -> None:
    store = new_store(history_limit=5)
    slow = store.subscribe(CONFIG_MAP, 0)
    for index in range(12):
        store.create(CONFIG_MAP, "n", f"c{index:02}", obj())
    with pytest.raises(CompactedError):
        slow.read()
    with pytest.raises(CompactedError):
        store.subscribe(CONFIG_MAP, 3)
    assert len(store.subscribe(CONFIG_MAP, 8).read()) == 4
    with pytest.raises(CompactedError):
        store.scan_at(CONFIG_MAP, 1)


def test_one_kinds_writes_do_not_forget_anothers_history(new_store: NewStore) -> None:
    store = new_store(history_limit=2)
    start = store.create(SECRET, "n", "s", obj()).revision
    for index in range(20):
        store.create(CONFIG_MAP, "n", f"c{index}", obj())
    store.delete(SECRET, "n", "s")
    assert len(store.subscribe(SECRET, start).read()) == 1


def test_compacting_forgets_everything_up_to_now(new_store: NewStore) -> None:
    store = new_store()
    old = store.create(CONFIG_MAP, "n", "a", obj()).revision
    store.create(CONFIG_MAP, "n", "b", obj())
    store.compact()
    with pytest.raises(CompactedError):
        store.subscribe(CONFIG_MAP, old)
    with pytest.raises(CompactedError):
        store.subscribe(SECRET, old)
    assert store.subscribe(CONFIG_MAP, store.revision).read() == []


async def test_waiting_ends_with_the_next_change_or_the_timeout(new_store: NewStore) -> None:
    store = new_store()
    subscription = store.subscribe(CONFIG_MAP)
    assert await subscription.wait(0.01) is False
    waiting = asyncio.create_task(subscription.wait(5))
    await asyncio.sleep(0)
    store.create(CONFIG_MAP, "n", "a", obj())
    assert await waiting is True


async def test_one_event_can_serve_the_subscriptions_of_several_kinds(new_store: NewStore) -> None:
    store = new_store()
    wake = asyncio.Event()
    subscriptions = [store.subscribe(kind, wake=wake) for kind in (CONFIG_MAP, SECRET)]
    store.create(SECRET, "n", "s", obj())
    assert wake.is_set()
    assert [len(subscription.read()) for subscription in subscriptions] == [0, 1]


def test_a_dropped_subscription_leaves_nothing(new_store: NewStore) -> None:
    store = new_store()
    subscription = weakref.ref(store.subscribe(CONFIG_MAP))
    gc.collect()
    assert subscription() is None
    store.create(CONFIG_MAP, "n", "a", obj())


def test_history_is_bounded_in_bytes_too_but_the_newest_changes_stay(new_store: NewStore) -> None:
    store = new_store(history_bytes=10_000)
    first = store.create(CONFIG_MAP, "n", "a", obj(text="")).revision
    for index in range(300):
        store.update(CONFIG_MAP, "n", "a", obj(text="x" * 1000, index=index))
    with pytest.raises(CompactedError):
        store.subscribe(CONFIG_MAP, first)
    assert len(store.subscribe(CONFIG_MAP, store.revision - 100).read()) == 100


def test_old_changes_keep_only_their_bytes_and_can_still_be_read(new_store: NewStore) -> None:
    store = new_store()
    old = store.create(CONFIG_MAP, "n", "a", obj(v=0))
    parsed = old.view
    assert old.view is parsed
    for index in range(1, 120):
        store.update(CONFIG_MAP, "n", "a", obj(v=index))
    assert old.view is not parsed
    assert old.view == parsed
    changes = store.subscribe(CONFIG_MAP, old.revision).read()
    assert [change.entry.view["data"]["v"] for change in changes] == list(range(1, 120))
