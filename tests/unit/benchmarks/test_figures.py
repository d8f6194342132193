"""The figures of `make bench-controlplane`."""

from __future__ import annotations

import pytest

from benchmarks.controlplane import against_goal


@pytest.mark.parametrize(("overhead", "met"), [(0.1, True), (0.3, True), (0.301, False)])
def test_a_trials_overhead_stands_beside_its_goal(overhead: float, met: bool) -> None:
    assert against_goal({"overhead_s": overhead, "bare_s": 0.01}) == {
        "overhead_s": overhead,
        "bare_s": 0.01,
        "goal_s": 0.3,
        "met": met,
    }
