from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.search_space import Range, parse
from airflow_llmtune.controlplane.algorithms.unit_cube import text_at, unit_of
from searches import choice, double, integer

EVERY_KIND = [
    double("x", "-2", "6"),
    double("x", "0.1", "0.9", step="0.2"),
    double("x", "1e-6", "1e-1", distribution="logUniform"),
    double("x", "1", "9", distribution="normal"),
    double("x", "1", "9", distribution="logNormal"),
    double("x", "1", "9", distribution="normal", step="0.7"),
    double("x", "3", "3"),
    integer("x", "-3", "9"),
    integer("x", "2", "64", step="6"),
    integer("x", "1", "1000", distribution="logUniform"),
    integer("x", "5", "5", distribution="normal"),
    choice("x", "a", "b", "c"),
]


@pytest.mark.parametrize("parameter", EVERY_KIND)
def test_a_value_comes_back_from_the_unit_interval(parameter: dict[str, Any]) -> None:
    (one,) = parse([parameter])
    for step in range(101):
        text = text_at(one, step / 100)
        back = text_at(one, unit_of(one, text))
        if isinstance(one, Range):
            assert float(back) == pytest.approx(float(text), rel=1e-6, abs=1e-9)
        else:
            assert back == text


@pytest.mark.parametrize("parameter", EVERY_KIND[:-1])
def test_the_unit_interval_covers_the_range_in_order(parameter: dict[str, Any]) -> None:
    (one,) = parse([parameter])
    assert isinstance(one, Range)
    values = [float(text_at(one, step / 200)) for step in range(-1, 202)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(float(one.low))
    assert values[-1] == pytest.approx(float(one.last))


@pytest.mark.parametrize(
    ("parameter", "count"),
    [(integer("x", "1", "4"), 4), (double("x", "0", "1", step="0.4"), 3), (choice("x", "a", "b", "c"), 3)],
)
def test_every_value_of_a_grid_owns_an_equal_part(parameter: dict[str, Any], count: int) -> None:
    (one,) = parse([parameter])
    texts = [text_at(one, (part + 0.5) / (count * 10)) for part in range(count * 10)]
    assert [texts.count(text) for text in dict.fromkeys(texts)] == [10] * count


def test_a_value_is_never_rounded_up_beyond_the_last_of_its_grid() -> None:
    (one,) = parse([double("x", "0.5", "1.5", step="0.6", distribution="logUniform")])
    assert isinstance(one, Range)
    assert one.text(1.5) == "1.1"


LARGE = [
    integer("x", "9007199254740993", "9007199254740999"),
    integer("x", "9007199254740993", "9007199254740999", distribution="logUniform"),
    integer("x", "9223372036854775800", "9223372036854775807", step="3"),
    integer("x", "-9223372036854775807", "9223372036854775807"),
]


@pytest.mark.parametrize("parameter", LARGE)
def test_an_int_that_is_no_double_stays_inside_its_range_and_on_its_step(parameter: dict[str, Any]) -> None:
    (one,) = parse([parameter])
    assert isinstance(one, Range)
    for place in range(8):
        value = int(text_at(one, place / 7))
        assert one.low <= value <= one.high
        assert one.step is None or (value - one.low) % one.step == 0


def test_ints_that_are_no_doubles_are_listed_one_by_one() -> None:
    (one,) = parse([LARGE[0]])
    assert one.values() == [str(number) for number in range(9007199254740993, 9007199254741000)]


def test_a_normal_int_is_rounded_so_that_every_value_has_its_share() -> None:
    (one,) = parse([integer("x", "-3", "3", distribution="normal")])
    texts = [text_at(one, (part + 0.5) / 1000) for part in range(1000)]
    shares = [texts.count(str(number)) for number in range(-3, 4)]
    assert shares == shares[::-1]
    assert 370 < shares[3] < 395, "of a standard deviation of 1, what lies within half of it"
    assert shares[6] > 0


@pytest.mark.parametrize("distribution", ["normal", "logNormal"])
def test_the_tails_of_the_widest_distribution_are_numbers(distribution: str) -> None:
    (one,) = parse([double("x", "1e-300", "1e300", distribution=distribution)])
    assert isinstance(one, Range)
    assert all(math.isfinite(one.at_quantile(quantile)) for quantile in (1e-9, 0.5, 1 - 1e-9))


def test_algorithms_are_loaded_one_after_the_other() -> None:
    program = """
import sys, threading, time
from airflow_llmtune.controlplane.algorithms import catalog

seen = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        thread = threading.current_thread().name
        if name.startswith(("scipy.", "sklearn.")) and seen[-1:] != [thread]:
            seen.append(thread)
        time.sleep(0.0001)

sys.meta_path.insert(0, Watch())
threads = [threading.Thread(target=catalog.load, args=(name,)) for name in ("sobol", "bayesianoptimization", "cmaes")]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(len(seen) == len(set(seen)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_controller_starts_without_the_libraries_of_the_algorithms() -> None:
    program = (
        "import sys; import airflow_llmtune.controlplane.controllers.suggestion; "
        "print([name for name in ('numpy', 'optuna', 'scipy', 'sklearn', 'cmaes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
