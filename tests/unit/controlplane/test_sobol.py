from __future__ import annotations

from airflow_llmtune.controlplane.algorithms.request import PastTrial
from searches import choice, double, points, request


def test_the_sobol_sequence_is_the_same_everywhere_unless_it_is_seeded() -> None:
    parameters = [double("x", "0", "1"), double("y", "0", "8")]
    plain = points("sobol", request(parameters), 3)
    assert [(one["x"], one["y"]) for one in plain] == [("0.5", "4.0"), ("0.75", "2.0"), ("0.25", "6.0")]
    assert points("sobol", request(parameters, experiment_uid="another"), 3) == plain
    scrambled = points("sobol", request(parameters, settings={"random_state": "5"}), 3)
    assert scrambled != plain


def test_a_point_of_the_sobol_sequence_that_was_dropped_comes_again() -> None:
    parameters = [double("x", "0", "1")]
    sequence = points("sobol", request(parameters), 6)
    past = [PastTrial(point) for point in (*sequence[:2], *sequence[3:5])]
    assert points("sobol", request(parameters, past=past), 2) == [sequence[2], sequence[5]]


def test_sobol_fills_a_small_space_more_than_once() -> None:
    drawn = points("sobol", request([choice("c", "a", "b")]), 8)
    assert sorted(one["c"] for one in drawn) == ["a"] * 4 + ["b"] * 4
