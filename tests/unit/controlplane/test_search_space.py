from __future__ import annotations

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


def test_the_controller_starts_without_the_libraries_of_the_algorithms() -> None:
    program = (
        "import sys; import airflow_llmtune.controlplane.controllers.suggestion; "
        "print([name for name in ('numpy', 'optuna', 'scipy', 'sklearn', 'cmaes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
