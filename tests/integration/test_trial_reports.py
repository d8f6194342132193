"""What passes between trials and Katib, and from trial to trial: metrics, the end of a bad one, checkpoints."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.resources import search_space as search
from tasks import make_claim, trials_of, tune
from trainer_image import names_of

JSON = dict[str, Any]
TRAINER = Path(__file__).parents[2] / "trainer"
# It reports what it is given as the trainer does.
PUSHING = f"""#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(TRAINER)!r})
from llmtune_trainer.katib_push import Push

flags = dict(word[2:].split("=", 1) for word in sys.argv if word.startswith("--"))
assert flags["metrics_push"] == "true"
with Push.open(os.environ) as push:
    for value in 9.0, float(flags["learning_rate"]):
        push.report("eval_loss", value, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
print("eval_loss=7.0")
"""
# The first to come is good, if not at its end; the next one is bad, and would run for minutes.
SLOW = """#!/bin/sh
last=0.1
for word in "$@"; do case "$word" in --mark=*) mark="${word#*=}";; --last=*) last="${word#*=}";; esac; done
mkdir "$mark" && loss=0.1 nap=0 || { loss=0.9; last=0.9; nap=300; }
for loss in $loss $loss $last; do echo "eval_loss=$loss"; done
exec sleep $nap
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def plane(trainer_image: Path, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    images = names_of(trainer_image)
    for name, program in (("pushing", PUSHING), ("slow", SLOW)):
        images[name] = tmp_path_factory.mktemp(name)
        write_programs(images[name] / "bin", program)
    with ControlPlane(images=images, state_dir=state) as plane:
        yield plane


def write_programs(folder: Path, text: str) -> None:
    folder.mkdir()
    for name in ("python", "torchrun"):
        script = folder / name
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("job_kind", ["Job", "PyTorchJob", "TrainJob"])
def test_a_trial_pushes_its_metrics_and_nobody_reads_its_output(kubeconfig, run, ask, job_kind):
    settings = {"trainer_args": {"metrics_push": True}, "job_options": {"job_kind": job_kind}}
    result = run.complete(tune(kubeconfig, image="pushing", **settings))
    trials = trials_of(ask, result)
    assert len(trials) == result["counts"]["succeeded"] == 3
    for trial in trials:
        rate = next(one["value"] for one in trial["spec"]["parameterAssignments"] if one["name"] == "learning_rate")
        (metric,) = trial["status"]["observation"]["metrics"]
        assert float(metric["latest"]) == float(rate)
        assert float(metric["max"]) == 9
    assert result["metrics"]["eval_loss"] == pytest.approx(result["parameters"]["learning_rate"])


def test_a_trial_that_is_worse_than_those_before_is_ended_early(kubeconfig, run, tmp_path):
    stopping = {"algorithm_name": "medianstop", "min_trials_required": 1, "start_step": "2"}
    settings = {"max_trial_count": 2, "parallel_trial_count": 1, "trainer_args": {"mark": str(tmp_path / "first")}}
    result = run.complete(tune(kubeconfig, image="slow", early_stopping=stopping, **settings))
    assert (result["counts"]["succeeded"], result["counts"]["early_stopped"]) == (1, 1)
    assert result["metrics"] == {"eval_loss": 0.1}


def test_a_trial_that_was_ended_early_is_the_best_without_a_model(kubeconfig, run, tmp_path, capfd):
    stopping = {"algorithm_name": "medianstop", "min_trials_required": 1, "start_step": 2}
    settings = {"max_trial_count": 2, "parallel_trial_count": 1, "output_uri": "/models/out"}
    flags = {"mark": str(tmp_path / "first"), "last": 2}
    result = run.complete(tune(kubeconfig, image="slow", early_stopping=stopping, trainer_args=flags, **settings))
    assert result["metrics"] == {"eval_loss": 0.9}
    assert result["artifact_uri"] is None
    assert f"The best trial, {result['trial']}, was ended early and left no model" in capfd.readouterr().out


def hyperband(r_l: int, eta: int) -> JSON:
    return {
        "parameters": {"learning_rate": search.log_uniform(1e-5, 1e-1), "max_steps": search.integer(1, r_l)},
        "algorithm_name": "hyperband",
        "algorithm_settings": {"resource_name": "max_steps", "r_l": r_l, "eta": eta},
    }


@pytest.mark.parametrize("job_kind", ["Job", "TrainJob"])
def test_a_longer_trial_of_hyperband_finds_the_checkpoint_of_the_shorter_one(kubeconfig, run, ask, state, job_kind):
    name = f"work-{job_kind.lower()}"
    make_claim(ask, name)
    result = run.complete(
        tune(
            kubeconfig,
            **hyperband(r_l=4, eta=2),
            max_trial_count=7,
            parallel_trial_count=4,
            checkpoint_steps=1,
            checkpoint_uri=f"pvc://{name}/rungs",
            job_options={"job_kind": job_kind},
        )
    )
    rungs = (state / "volumes" / "default" / name / "rungs" / "resumed").read_text().splitlines()
    # Of four trials two go on, and of these one, which finds those of both.
    assert sorted(rungs) == ["1 2", "1 2", "1 4", "2 4"]
    assert result["counts"]["succeeded"] == 7


def test_the_hyperband_of_the_reference_gets_through_katib_as_it_is(trainer_image, run, tmp_path):
    with ControlPlane(images=names_of(trainer_image), strict=True) as katib:
        katib.write_kubeconfig(tmp_path / "kubeconfig.yaml")
        settings = {**hyperband(r_l=240, eta=16), "max_trial_count": 19, "parallel_trial_count": 16}
        result = run.complete(tune(str(tmp_path / "kubeconfig.yaml"), **settings))
    assert (result["counts"]["succeeded"], result["partial"]) == (19, False)
