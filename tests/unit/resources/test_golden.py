"""Golden files: ``data/<kind>/<case>.input.json`` -> ``<case>.output.json``; ``--update-golden`` writes the latter."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_llmtune.resources import experiment, pod, trial_template
from airflow_llmtune.resources.own_name import fill_in
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import stamped
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.serving_spec import ServingSpec

JSON = dict[str, Any]
DATA = Path(__file__).parent / "data"
CASES = sorted(DATA.glob("*/*.input.json"))
WHERE = ("demo-tune-1a2b3c4d-1", "ml", {"airflow-llmtune/attempt": "1"}, {"airflow-llmtune/owner": "u-1"})


def make_experiment(given: JSON) -> JSON:
    problems = Problems()
    space = SearchSpace.from_json(given["parameters"], problems)
    spec = experiment.ExperimentSpec.from_args(parameters=space, problems=problems, **given["experiment"])
    trainer = trial_template.TrainerSpec.from_args(problems=problems, **given["trainer"])
    template = trial_template.trial_template(trainer, space, problems)
    problems.raise_if_any("The golden input")
    made = spec.to_manifest(*WHERE, template, pushed=trainer.pushes_metrics)
    return cast("JSON", fill_in(made, WHERE[0]))


def make_training_job(given: JSON) -> JSON:
    problems = Problems()
    trainer = trial_template.TrainerSpec.from_args(problems=problems, **given["trainer"])
    manifest = trial_template.training_manifest(trainer, *WHERE, given["hyperparameters"], problems)
    problems.raise_if_any("The golden input")
    return cast("JSON", fill_in(manifest, WHERE[0]))


def read_experiment_status(given: JSON) -> JSON:
    outcome = experiment.read_outcome(given)
    read: JSON = {"outcome": [outcome.phase, outcome.reason, outcome.message]}
    read["counts"] = experiment.read_counts(given)
    if outcome.phase == "Succeeded":
        read["result"] = experiment.read_result(given, experiment.search_space_of(given), None)
    return read


def read_pod_status(given: JSON) -> JSON:
    return {"failure": pod.read_failure(given), "result": pod.read_training_result(given)}


def make_serving(given: JSON) -> JSON:
    """All arguments have to be named, and most of them are left out."""
    problems = Problems()
    arguments = inspect.signature(ServingSpec.from_args).parameters.keys() - {"problems"}
    spec = ServingSpec.from_args(problems=problems, **{**dict.fromkeys(arguments), **given})
    problems.raise_if_any("The golden input")
    manifest = spec.to_manifest()
    return {**manifest, "spec": stamped(manifest["spec"])}


MAKERS: dict[str, Callable[[JSON], JSON]] = {
    "experiment": make_experiment,
    "training_job": make_training_job,
    "experiment_status": read_experiment_status,
    "pod_status": read_pod_status,
    "serving": make_serving,
}


@pytest.mark.parametrize("source", CASES, ids=lambda path: f"{path.parent.name}/{path.name.split('.')[0]}")
def test_each_input_gives_its_golden_output(source: Path, update_golden: bool) -> None:
    made = MAKERS[source.parent.name](json.loads(source.read_text()))
    golden = source.with_name(source.name.replace(".input.", ".output."))
    if update_golden:
        golden.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    assert made == json.loads(golden.read_text())


def test_every_kind_has_cases() -> None:
    assert {source.parent.name for source in CASES} == MAKERS.keys()


@pytest.mark.parametrize("golden", sorted(DATA.glob("experiment/*.output.json")), ids=lambda path: path.name)
def test_golden_experiments_are_katibs(golden: Path, through_katib: Callable[[JSON], JSON]) -> None:
    manifest = json.loads(golden.read_text())
    assert through_katib(manifest) == manifest
    problems = Problems()
    experiment.check_manifest(manifest, problems)
    assert problems.errors == []
