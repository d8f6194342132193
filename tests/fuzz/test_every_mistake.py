"""However many mistakes there are, and whichever: one error names each of them, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistakes import GOOD, MISTAKES, Mistake, plant
from verdicts import judge, made


@pytest.mark.parametrize("kind", MISTAKES)
def test_each_planted_mistake_is_told_once(kind: type[Any], kubeconfig: str, cases: settings, tally: Any) -> None:
    @settings(cases)
    @given(st.lists(st.sampled_from(MISTAKES[kind]), unique_by=lambda mistake: mistake.told))
    def check(planted: list[Mistake]) -> None:
        verdict = judge(made(kind, kubeconfig, plant(GOOD[kind], planted)))
        tally.count(verdict)
        assert verdict.arguments == sorted(mistake.told for mistake in planted)
        assert verdict.refusal is None

    check()


@pytest.mark.parametrize(
    ("kind", "mistake"), [(kind, mistake) for kind, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_each_alone_is_told(kind: type[Any], mistake: Mistake, kubeconfig: str) -> None:
    assert judge(made(kind, kubeconfig, plant(GOOD[kind], [mistake]))).arguments == [mistake.told]


@pytest.mark.parametrize("kind", MISTAKES)
def test_all_at_once_are_told(kind: type[Any], kubeconfig: str) -> None:
    verdict = judge(made(kind, kubeconfig, plant(GOOD[kind], MISTAKES[kind])))
    assert verdict.arguments == sorted(mistake.told for mistake in MISTAKES[kind])
