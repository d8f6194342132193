"""Who gets the next request."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.controlplane.gateway import picking
from airflow_llmtune.controlplane.gateway.endpoints import Endpoint
from airflow_llmtune.controlplane.gateway.picking import LeastBusy, WeightedTurns
from airflow_llmtune.controlplane.gateway.routes import Backend, Rule


def rule(*weights: int, name: str = "r") -> Rule:
    backends = tuple(Backend("default", f"s{index}", 80, weight) for index, weight in enumerate(weights))
    return Rule(("default", name, 0), backends)


def names(turns: WeightedTurns, chosen: Rule, count: int) -> list[str]:
    return [backend.service for _ in range(count) if (backend := turns.next(chosen)) is not None]


def pod(name: str) -> Endpoint:
    return Endpoint(name, name, "127.0.0.1", 80)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any))
def test_each_backend_gets_exactly_its_share_of_a_round(weights: list[int]) -> None:
    turns = WeightedTurns()
    smallest = math.gcd(*weights)
    for _ in range(3):
        counts = Counter(names(turns, rule(*weights), sum(weights) // smallest))
        assert [counts[f"s{index}"] * smallest for index in range(len(weights))] == weights


def test_a_small_share_is_spread_out() -> None:
    turns = names(WeightedTurns(), rule(80, 20), 20)
    assert turns == ["s0", "s0", "s1", "s0", "s0"] * 4


def test_without_any_weight_nobody_gets_anything() -> None:
    assert WeightedTurns().next(rule(0, 0)) is None
    assert WeightedTurns().next(rule()) is None


def test_rules_count_apart_and_a_changed_one_starts_anew() -> None:
    turns = WeightedTurns()
    assert names(turns, rule(1, 1), 1) == ["s0"]
    assert names(turns, rule(1, 1, name="other"), 1) == ["s0"]
    assert names(turns, rule(1, 1), 1) == ["s1"]
    assert names(turns, rule(1, 3), 4) == ["s1", "s0", "s1", "s1"]


def test_the_least_busy_pod_is_chosen_and_equals_take_turns() -> None:
    pods, chosen = [pod("a"), pod("b"), pod("c")], LeastBusy()
    assert [chosen.choose(pods).pod for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    with chosen.busy(pod("a")), chosen.busy(pod("b")), chosen.busy(pod("b")):
        assert [chosen.choose(pods).pod for _ in range(2)] == ["c", "c"]
        assert chosen.choose(pods[:2]).pod == "a"
    assert {chosen.choose(pods).pod for _ in range(3)} == {"a", "b", "c"}


def test_a_failed_request_is_no_longer_under_way() -> None:
    chosen = LeastBusy()
    with pytest.raises(OSError, match="broken"), chosen.busy(pod("a")):
        raise OSError("broken")
    assert chosen.choose([pod("a"), pod("b")]).pod == "a"


def test_what_was_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "_MOST_REMEMBERED", 2)
    turns = WeightedTurns()
    for name in ("a", "b", "a", "c"):
        turns.next(rule(1, 1, name=name))
    assert names(turns, rule(1, 1, name="a"), 1) == ["s0"]
    assert names(turns, rule(1, 1, name="c"), 1) == ["s1"]
    assert names(turns, rule(1, 1, name="b"), 1) == ["s0"]
