"""The arithmetic of a rolling update, case by case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.controllers.deployment_sizes import (
    ReplicaSetSize,
    max_surge,
    max_unavailable,
    proportional,
    size_of_new,
    sizes_of_old,
)


def spec(replicas: int, surge: int | str = "25%", unavailable: int | str = "25%") -> dict[str, Any]:
    update = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": update}}


RECREATE = {"replicas": 3, "strategy": {"type": "Recreate"}}


def size(name: str, wanted: int, available: int | None = None, active: int = 0, total: int = 0) -> ReplicaSetSize:
    return ReplicaSetSize(name, wanted, active, wanted if available is None else available, total)


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (1, "25%", "25%", (1, 0)),
        (3, "25%", "25%", (1, 0)),
        (4, "25%", "25%", (1, 1)),
        (5, "25%", "25%", (2, 1)),
        (10, "25%", "25%", (3, 2)),
        (100, "1%", "1%", (1, 1)),
        (0, "25%", "25%", (0, 0)),
        (3, 0, 1, (0, 1)),
        (3, 2, 0, (2, 0)),
        (3, 0, 5, (0, 3)),
        (3, "0%", "10%", (0, 1)),
        (10, "0%", "5%", (0, 1)),
        (3, "100%", "100%", (3, 3)),
        (2, "150%", 0, (3, 0)),
    ],
)
def test_surge_is_rounded_up_and_unavailability_down(
    replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]
) -> None:
    """And were both 0, one pod may be missing, or nothing would ever move."""
    found = spec(replicas, surge, unavailable)
    assert (max_surge(found), max_unavailable(found)) == expected


def test_a_deployment_that_is_recreated_has_no_surge_and_misses_no_pods() -> None:
    assert (max_surge(RECREATE), max_unavailable(RECREATE)) == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "old", "new", "expected"),
    [
        # The new one gets what replicas and surge leave it.
        (spec(10, 0, 2), [size("a", 10)], size("new", 0), 0),
        (spec(10, 0, 2), [size("a", 8)], size("new", 0), 2),
        (spec(10, 2, 2), [size("a", 10)], size("new", 0), 2),
        (spec(10, 2, 2), [size("a", 5)], size("new", 5), 7),
        (spec(10, 5, 0), [size("a", 5)], size("new", 9), 10),
        (spec(3), [size("a", 2), size("b", 1)], size("new", 0), 1),
        (spec(3), [], size("new", 0), 3),
        # It never shrinks for lack of room, only to the wanted number.
        (spec(3), [size("a", 9)], size("new", 2), 2),
        (spec(3), [], size("new", 5), 3),
        # Pods that are still to be deleted take room.
        (spec(3), [size("a", 2, active=3)], size("new", 1), 1),
        (spec(3), [size("a", 2, active=2)], size("new", 1), 2),
        (RECREATE, [size("a", 3)], size("new", 0), 3),
    ],
)
def test_the_new_replica_set_grows_as_far_as_there_is_room(
    wanted: dict[str, Any], old: list[ReplicaSetSize], new: ReplicaSetSize, expected: int
) -> None:
    assert size_of_new(wanted, old, new) == expected


@pytest.mark.parametrize(
    ("wanted", "old", "new", "expected"),
    [
        # Nothing goes before new pods are available.
        (spec(3), [size("a", 3)], size("new", 1, available=0), {}),
        (spec(3), [size("a", 3)], size("new", 1), {"a": 2}),
        (spec(3), [size("a", 2)], size("new", 2, available=1), {}),
        (spec(3), [size("a", 1)], size("new", 3), {"a": 0}),
        # What may be missing goes at once.
        (spec(10, 0, 2), [size("a", 10)], size("new", 0), {"a": 8}),
        (spec(10, 0, 2), [size("a", 8)], size("new", 2, available=0), {}),
        (spec(10, 0, 2), [size("a", 8)], size("new", 2, available=1), {"a": 7}),
        (spec(4, 0, "100%"), [size("a", 4)], size("new", 0), {"a": 0}),
        # What is not available goes first, and is no loss.
        (spec(3), [size("a", 3, available=1)], size("new", 1, available=0), {}),
        (spec(10, 3, 2), [size("a", 10, available=8)], size("new", 3, available=0), {"a": 8}),
        (spec(10, 3, 2), [size("a", 10, available=7)], size("new", 3, available=0), {"a": 8}),
        (spec(3), [size("a", 3, available=0)], size("new", 1), {"a": 2}),
        (spec(3), [size("broken", 1, available=0), size("a", 3)], size("new", 0), {"broken": 0}),
        (spec(3), [size("a", 3), size("broken", 1, available=0)], size("new", 0), {"broken": 0}),
        # The oldest of those that are available.
        (spec(4, 2, 0), [size("a", 2), size("b", 2)], size("new", 2), {"a": 0}),
        (spec(4, 3, 0), [size("a", 2), size("b", 2)], size("new", 3), {"a": 0, "b": 1}),
        # A status from before its ReplicaSet became smaller.
        (spec(3), [size("a", 2, available=3)], size("new", 1), {}),
        (spec(3), [size("a", 0)], size("new", 3), {}),
    ],
)
def test_the_old_ones_shrink_as_far_as_new_pods_make_up_for_it(
    wanted: dict[str, Any], old: list[ReplicaSetSize], new: ReplicaSetSize, expected: dict[str, int]
) -> None:
    assert sizes_of_old(wanted, old, new) == expected


@pytest.mark.parametrize(
    ("wanted", "newest_first", "expected"),
    [
        # From 10 and a surge of 3.
        (spec(15, 3), [size("b", 5, total=13), size("a", 8, total=13)], {"a": 11, "b": 7}),
        (spec(20, 3), [size("b", 5, total=13), size("a", 8, total=13)], {"a": 14, "b": 9}),
        (spec(5, 3), [size("b", 5, total=13), size("a", 8, total=13)], {"a": 5, "b": 3}),
        (spec(0, 3), [size("b", 5, total=13), size("a", 8, total=13)], {"a": 0, "b": 0}),
        (spec(10, 3), [size("b", 5, total=13), size("a", 8, total=13)], {}),
        # Of two as large the newer grows and the older shrinks.
        (spec(12, 0), [size("b", 5, total=10), size("a", 5, total=10)], {"a": 6, "b": 6}),
        (spec(11, 0), [size("b", 5, total=10), size("a", 5, total=10)], {"a": 5, "b": 6}),
        (spec(9, 0), [size("b", 5, total=10), size("a", 5, total=10)], {"a": 4, "b": 5}),
        # Without an annotation the Deployment's own number stands in.
        (spec(20, 0), [size("b", 5), size("a", 5)], {"a": 10, "b": 10}),
    ],
)
def test_a_change_in_the_middle_of_a_rollout_is_shared(
    wanted: dict[str, Any], newest_first: list[ReplicaSetSize], expected: dict[str, int]
) -> None:
    assert proportional(wanted, newest_first, total_before=10) == expected


amounts = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda share: f"{share}%"))
sizes = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 9))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    replicas=st.integers(0, 8),
    surge=amounts,
    unavailable=amounts,
    old=st.lists(sizes, max_size=3),
    new=sizes,
)
def test_no_step_goes_below_the_pods_that_must_stay_nor_above_those_that_may_be(
    replicas: int,
    surge: int | str,
    unavailable: int | str,
    old: list[tuple[int, int, int]],
    new: tuple[int, int, int],
) -> None:
    wanted = spec(replicas, surge, unavailable)
    olds = [ReplicaSetSize(str(place), one[0], one[2], one[1]) for place, one in enumerate(old)]
    newest = ReplicaSetSize("new", new[0], new[2], new[1])
    every = [*olds, newest]
    smallest, largest = replicas - max_unavailable(wanted), replicas + max_surge(wanted)

    before = sum(one.available for one in every)
    cut = sizes_of_old(wanted, olds, newest)
    # A ReplicaSet deletes what is not available first.
    after = sum(min(one.available, cut.get(one.name, one.wanted)) for one in every)
    assert after >= min(before, smallest)
    assert all(0 <= cut[name] < one.wanted for one in olds for name in [one.name] if name in cut)

    total = sum(one.total for one in every)
    grown = size_of_new(wanted, olds, newest)
    assert total + max(0, grown - newest.wanted) <= max(total, largest)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    replicas=st.integers(0, 30),
    surge=amounts,
    total=st.integers(1, 30),
    active=st.lists(st.integers(1, 12), min_size=2, max_size=4),
)
def test_a_shared_change_comes_out_even(replicas: int, surge: int | str, total: int, active: list[int]) -> None:
    wanted = spec(replicas, surge, 1)
    sets = [ReplicaSetSize(str(place), one, largest_total=total) for place, one in enumerate(active)]
    sized = proportional(wanted, sets, total_before=total)
    allowed = replicas + max_surge(wanted) if replicas else 0
    if sized:
        assert min(sized.values()) >= 0
        assert sum(sized.values()) >= allowed
