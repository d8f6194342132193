from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import PastTrial
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from searches import choice, double, points, request


@pytest.mark.parametrize("parameters", [[double("x", "0", "1"), choice("c", "a", "b")], [choice("c", "a", "b")]])
def test_cmaes_needs_two_numeric_parameters(parameters: list[dict[str, Any]]) -> None:
    text = "CMA-ES only supports two or more dimensional continuous search space."
    with pytest.raises(InvalidSettingsError, match=text):
        load("cmaes").validate(request(parameters))


def test_cmaes_waits_for_a_whole_generation_before_it_moves() -> None:
    parameters = [double("x", "0", "1"), double("y", "0", "1")]
    first = points("cmaes", request(parameters), 6)
    values = [float(point["x"]) for point in first]
    ended = [PastTrial(point, "complete", value) for point, value in zip(first, values, strict=True)]
    waiting = [*ended[:5], PastTrial(first[5])]
    moved, unmoved = (points("cmaes", request(parameters, past=past), 1) for past in (ended, waiting))
    assert float(moved[0]["x"]) < float(unmoved[0]["x"])


@pytest.mark.parametrize("strategy", ["ipop", "bipop"])
def test_cmaes_begins_again_with_other_populations_when_it_has_converged(strategy: str) -> None:
    parameters = [double("x", "0", "1"), double("y", "0", "1")]
    flat = [PastTrial({"x": str(0.4 + 0.001 * (index % 7)), "y": "0.5"}, "complete", 1.0) for index in range(400)]
    restarted = points("cmaes", request(parameters, past=flat, settings={"restart_strategy": strategy}), 8)
    assert restarted != points("cmaes", request(parameters, past=flat, settings={"restart_strategy": "none"}), 8)


def test_a_wider_sigma_spreads_the_first_generation_of_cmaes() -> None:
    parameters = [double("x", "0", "10"), double("y", "0", "10")]
    spread = []
    for sigma in ("0.1", "3"):
        drawn = points("cmaes", request(parameters, settings={"sigma": sigma}), 12)
        spread.append(max(abs(float(point["x"]) - 5) for point in drawn))
    assert spread[0] < 0.5 < 1.5 < spread[1]
