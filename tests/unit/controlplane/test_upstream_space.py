"""What the libraries of Katib's services make of a space and of settings, in both modes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import PastTrial
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from airflow_llmtune.controlplane.algorithms.upstream_space import UpstreamFailureError
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from both_modes import both_modes
from objects import Object
from searches import choice, double, integer, points, request
from suggestion_world import World, algorithm

SEEDED = {"random_state": "3"}


def fails(when: bool) -> AbstractContextManager[Any]:
    return pytest.raises(UpstreamFailureError, match="Exception calling application: ") if when else nullcontext()


def ended(point: dict[str, str]) -> PastTrial:
    return PastTrial(point, "complete", 0.5)


@both_modes("distributions-ignored")
@pytest.mark.parametrize("name", ["cmaes", "sobol"])
def test_logarithms_are_unknown_to_goptuna(name: str, strict: bool) -> None:
    space = [double("x", "1e-6", "1", distribution="logUniform"), double("y", "0", "1")]
    drawn = points(name, request(space, settings=SEEDED, strict=strict), 40)
    assert (sum(float(point["x"]) < 0.01 for point in drawn) < 5) is strict


@both_modes("doubles-in-logarithms")
def test_skopt_searches_doubles_in_logarithms_and_ints_evenly(strict: bool) -> None:
    space = [double("x", "1e-6", "1"), integer("n", "1", "1000000", distribution="logUniform")]
    drawn = points("bayesianoptimization", request(space, settings=SEEDED, strict=strict), 40)
    assert (sum(float(point["x"]) < 0.01 for point in drawn) > 20) is strict
    assert (sum(int(point["n"]) < 10_000 for point in drawn) < 5) is strict


@both_modes("doubles-in-logarithms")
def test_the_model_of_skopt_is_in_logarithms_too(strict: bool) -> None:
    space = [double("x", "1e-6", "1"), choice("c", "a", "b")]
    past = [PastTrial({"x": f"1e-{index}", "c": "a"}, "complete", abs(index - 4.0)) for index in (1, 2, 3, 5, 6)]
    known = {**SEEDED, "n_initial_points": "2"}
    (point,) = points("bayesianoptimization", request(space, past=past, settings=known, strict=strict), 1)
    assert (1e-5 < float(point["x"]) < 1e-2) is strict


@both_modes("doubles-in-logarithms")
def test_a_double_that_has_no_logarithm(strict: bool) -> None:
    asked = request([double("x", "0", "1")], strict=strict)
    load("bayesianoptimization").validate(asked)
    with fails(strict):
        assert points("bayesianoptimization", asked, 2)


@both_modes("normal-distributions-fail")
@pytest.mark.parametrize("name", ["grid", "multivariate-tpe"])
@pytest.mark.parametrize("distribution", ["normal", "logNormal"])
def test_normal_distributions_are_unknown_to_optuna(name: str, distribution: str, strict: bool) -> None:
    asked = request([double("x", "1", "2", step="0.1", distribution=distribution)], strict=strict)
    load(name).validate(asked)
    with fails(strict):
        assert points(name, asked, 2)


@both_modes("normal-distributions-fail")
async def test_a_call_that_raises_is_repeated_and_the_suggestion_goes_on_running(
    registry: Registry, clock: Clock, tmp_path: Path, experiment: Object, strict: bool
) -> None:
    world = World(registry, clock, tmp_path, strict=strict)
    experiment["spec"]["parameters"] = [double("lr", "1", "2", distribution="normal")]
    world.ask(experiment, 1, algorithm=algorithm("multivariate-tpe"))
    with fails(strict):
        await world.settle()
    with fails(strict):
        await world.controller.reconcile("default", "exp")
    status = world.suggestion()["status"]
    assert (status["conditions"][-1]["type"], status["conditions"][-1]["status"]) == ("Running", "True")
    assert status.get("suggestionCount", 0) == (0 if strict else 1)


@both_modes("unusable-settings-accepted")
@pytest.mark.parametrize(
    ("known", "draws_at_first"),
    [
        ({"acq_func": "EIps"}, True),
        ({"acq_func": "PIps"}, True),
        ({"acq_optimizer": "lbfgs", "base_estimator": "RF"}, False),
    ],
)
def test_settings_that_skopt_cannot_use(known: dict[str, str], draws_at_first: bool, strict: bool) -> None:
    space = [double("x", "0.1", "1")]
    asked = request(space, settings=known, strict=strict)
    if not strict:
        with pytest.raises(InvalidSettingsError):
            load("bayesianoptimization").validate(asked)
        return
    load("bayesianoptimization").validate(asked)
    with fails(not draws_at_first):
        assert points("bayesianoptimization", asked, 2)
    with fails(True):
        points("bayesianoptimization", request(space, past=[ended({"x": "0.5"})], settings=known, strict=True), 1)


@both_modes("one-call-repeats-a-point")
def test_several_sets_in_one_call_of_tpe(strict: bool) -> None:
    space = [double("x", "0", "1")]
    first = points("tpe", request(space, strict=strict), 4)
    later = points("tpe", request(space, past=[ended(point) for point in first], strict=strict), 4)
    assert len({point["x"] for point in first}) == 4
    assert len({point["x"] for point in later}) == (1 if strict else 4)
