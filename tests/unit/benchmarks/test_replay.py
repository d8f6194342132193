"""What `make replay` finds wrong with a day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import psutil
import pytest

from benchmarks.replay import LEAST_SAMPLES, SPARE_DESCRIPTORS, Sample, growth, mistakes

SAMPLES = 200
CALM = Sample(hour=0, resident_mb=100, descriptors=20, children=2, threads=4, objects=50, disk_mb=1)


def day(resident: Callable[[float], float] = lambda _: 100.0, samples: int = SAMPLES) -> list[Sample]:
    """From midnight to midnight; the last sample is of after the tidying."""
    hours = [24 * number / samples for number in range(samples)]
    return [replace(CALM, hour=hour, resident_mb=resident(hour)) for hour in hours] + [replace(CALM, hour=24)]


def leaking(hour: float) -> float:
    return 100 + hour / 2


def rising_at_first(hour: float) -> float:
    return 80 + 5 * min(hour, 4.0)


def noisy(hour: float) -> float:
    return 100 + Random(hour).uniform(-3, 3)


def falling(hour: float) -> float:
    return 100 - hour


@pytest.mark.parametrize("resident", [lambda _: 100.0, noisy, rising_at_first, falling])
def test_a_day_without_a_leak_passes(resident: Callable[[float], float]) -> None:
    assert mistakes(day(resident), []) == []


def test_memory_that_grows_all_day_is_told_with_its_share() -> None:
    samples = day(leaking)
    # 12 MB more in a day, of 107.5 MB in the mean of what is looked at.
    assert growth(samples) == pytest.approx(12 / 107.5, rel=0.01)
    assert mistakes(samples, []) == ["memory grows by 11.2% a day, the bound is 8%"]


def test_the_sample_after_the_tidying_is_no_part_of_the_trend() -> None:
    samples = day()
    samples[-1] = replace(samples[-1], resident_mb=100_000)
    assert growth(samples) == 0


def test_a_short_day_has_no_trend() -> None:
    samples = day(leaking, samples=LEAST_SAMPLES)
    assert growth(samples) is None
    assert mistakes(samples, []) == []


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ({"children": 3}, ["1 child processes are left"]),
        ({"children": 1}, []),
        ({"descriptors": 20 + SPARE_DESCRIPTORS}, []),
        ({"descriptors": 20 + SPARE_DESCRIPTORS + 1}, [f"{SPARE_DESCRIPTORS + 1} file descriptors are left"]),
        ({"children": 4, "descriptors": 99}, ["2 child processes are left", "79 file descriptors are left"]),
    ],
)
def test_what_is_left_after_the_day_is_told(left: dict[str, int], told: list[str]) -> None:
    samples = day()
    samples[-1] = replace(samples[-1], **left)
    assert mistakes(samples, []) == told


def test_processes_that_outlive_the_control_plane_are_told() -> None:
    assert mistakes(day(), [psutil.Process()]) == ["1 processes outlive the control plane"]
