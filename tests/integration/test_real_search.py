"""Searches that give up trials, or go on with the best of them: hyperband and medianstop with the trainer itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks.client import KubeflowClient
from airflow_llmtune.hooks.diagnosis import read_pods
from airflow_llmtune.resources import experiment, pod, trial
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.defaults import TRAINER_IMAGE
from tasks import make_claim, trials_of, tune
from waiting import wait_for

JSON = dict[str, Any]
SETTINGS = {"dtype": "float32", "max_length": 64}
# Several processes in a row, each of which imports torch, beside other tests.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def plane(state: Path) -> Iterator[ControlPlane]:
    with ControlPlane(images={"airflow-llmtune/trainer": Path(sys.prefix)}, state_dir=state) as plane:
        yield plane


@pytest.fixture
def arguments(tiny: Path, kubeconfig: str) -> JSON:
    return {
        "kubeconfig": kubeconfig,
        "image": TRAINER_IMAGE,
        "model": str(tiny / "model"),
        "dataset": str(tiny / "data"),
        "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    }


def trials_and_logs(ask: Any, result: JSON) -> list[JSON]:
    """Return what is known of each trial, and what its trainer has said."""
    read = map(trial.read_trial, trials_of(ask, result))
    return [{**one, "log": ask(lambda client, one=one: read_log(client, one["name"]))} for one in read]


async def read_log(client: KubeflowClient, name: str) -> str:
    (item,) = await read_pods(client, "default", f"{trial.TRIAL_LABEL}={name}")
    return str(await client.read_log("default", item["metadata"]["name"], pod.LOG_COLLECTOR, tail_lines=1000))


def phases(ask: Any, result: JSON) -> list[str]:
    pods = ask(lambda client: read_pods(client, "default", experiment.pod_selector(result["experiment"])))
    return [item["status"]["phase"] for item in pods]


def test_the_best_of_a_rung_of_hyperband_goes_on_from_its_checkpoint(run, arguments, ask, state, capfd):
    make_claim(ask, "work")
    rates = search.log_uniform(1e-3, 2e-2)  # with all of them eight steps are better than two
    result = run.complete(
        tune(
            **arguments,
            parameters={"learning_rate": rates, "max_steps": search.integer(1, 8)},
            algorithm_name="hyperband",
            algorithm_settings={"resource_name": "max_steps", "r_l": 8, "eta": 3},
            max_trial_count=4,
            parallel_trial_count=3,
            checkpoint_steps=3,
            checkpoint_uri="pvc://work/rungs",
            trainer_args={**SETTINGS, "max_length": 29, "lr_scheduler_type": "constant"},
        )
    )
    *short, long = trials_and_logs(ask, result)
    best = min(short, key=lambda one: one["metrics"]["eval_loss"])
    assert [one["parameters"]["max_steps"] for one in (*short, long)] == ["2", "2", "2", "8"]
    assert long["parameters"]["learning_rate"] == best["parameters"]["learning_rate"]
    assert ["resumed from step" in one["log"] for one in short] == [False, False, False]
    assert "\nresumed from step 2\n" in long["log"]
    assert re.findall(r"checkpoint saved: step (\d)", long["log"]) == ["3", "6", "8"]
    assert (result["trial"], result["metrics"]) == (long["name"], long["metrics"])
    assert result["metrics"]["eval_loss"] < best["metrics"]["eval_loss"]
    assert result["parameters"] == {"learning_rate": float(best["parameters"]["learning_rate"]), "max_steps": 8}
    assert result["manifest"]["steps"] == 8
    # Each trial has said so, the task's log tells it once.
    assert capfd.readouterr().out.count("rows cut off at --max_length 29: 60, by 60 tokens in all") == 1

    # Of the search only what a longer trial could go on from is left: the last checkpoint of each set of parameters.
    kept = sorted(folder.name for folder in (state / "volumes" / "default" / "work" / "rungs").glob("*/*"))
    assert kept == ["checkpoint-2", "checkpoint-2", "checkpoint-8"]
    assert phases(ask, result) == ["Succeeded"] * 4


def test_a_hopeless_trial_is_ended_by_medianstop_and_the_search_ends_well(run, arguments, ask):
    result = run.complete(
        tune(
            **arguments,
            # With this random state the first comes first: who is judged is the second.
            parameters={"learning_rate": search.categorical([0.01, 30.0])},
            algorithm_settings={"random_state": 1},
            max_trial_count=2,
            parallel_trial_count=1,
            early_stopping={"algorithm_name": "medianstop", "min_trials_required": 1, "start_step": 2},
            # Else the trainer itself would end it. The collector has the time of 270 steps to do so.
            trainer_args={**SETTINGS, "max_steps": 300, "eval_steps": 15, "divergence_ratio": "none"},
        )
    )
    good, hopeless = trials_and_logs(ask, result)
    assert (good["phase"], hopeless["phase"]) == ("Succeeded", "EarlyStopped")
    assert "\ndone: 300 steps" in good["log"]
    assert "done:" not in hopeless["log"]
    assert 2 <= hopeless["log"].count(" eval_loss=") < good["log"].count(" eval_loss=") == 20
    assert hopeless["metrics"]["eval_loss"] > good["metrics"]["eval_loss"]
    assert (result["trial"], result["parameters"]) == (good["name"], {"learning_rate": 0.01})
    assert result["metrics"] == good["metrics"]
    assert (result["counts"]["succeeded"], result["counts"]["early_stopped"]) == (1, 1)
    # Its trial ends as soon as it has told its metrics, its pod a moment later.
    wait_for(lambda: phases(ask, result) == ["Succeeded"] * 2)
