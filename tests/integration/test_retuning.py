"""Tuning and training again: nothing when nothing changed, else around the champion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.operators.model_asset import CHAMPION
from airflow_llmtune.operators.trainer import EvaluateLLMOperator
from airflow_llmtune.resources import experiment, job
from airflow_llmtune.resources import search_space as search
from asset_state import AssetRun, AssetStates
from tasks import fine_tune, tune
from trainer_image import STAND_IN

MODEL, NEWS = Asset("model"), Asset("news")


@pytest.fixture
def states() -> AssetStates:
    return AssetStates()


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.jsonl").write_text("{}\n")
    return {"model": str(tmp_path / "model"), "dataset": str(tmp_path / "data")}


def remembering(sources: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {**sources, "model_asset": MODEL, "skip_if_unchanged": True, "outlets": [NEWS], **changes}


def made(ask: Any, kind: Any, run: AssetRun) -> list[str]:
    found, _ = ask(lambda client: client.list_all(kind, "default", label_selector=f"run_id={run.run_id}"))
    return [item["metadata"]["name"] for item in found]


def test_an_unchanged_tuning_returns_what_was_found_and_creates_nothing(kubeconfig, states, sources, ask):
    first = AssetRun(states)
    found = first.complete(tune(kubeconfig, **remembering(sources)))
    assert first.outlet_events[NEWS].extra["parameters"] == found["parameters"]
    json.dumps(first.outlet_events[NEWS].extra, allow_nan=False)

    second = AssetRun(states)
    operator = tune(kubeconfig, **remembering(sources, parallel_trial_count=1))
    again = second.complete(operator)
    assert again == {**found, "unchanged": True, "champion": None}
    assert second.deferrals == 0
    assert made(ask, experiment.KIND, second) == []
    assert second.outlet_events._dict == {}


def test_an_unchanged_training_returns_the_adapter_that_is_there(kubeconfig, states, sources, ask):
    settings = remembering(sources, hyperparameters={"learning_rate": 0.001})
    found = AssetRun(states).complete(fine_tune(kubeconfig, output_uri="/models/a", **settings))
    second = AssetRun(states)
    again = second.complete(fine_tune(kubeconfig, output_uri="/models/b", **settings))
    assert again["unchanged"] is True
    assert again["artifact_uri"] == found["artifact_uri"] == "/models/a"
    assert again["metrics"] == found["metrics"]
    assert made(ask, job.KIND, second) == []


def test_an_unchanged_tuning_tells_the_champion_where_that_is_another_one(kubeconfig, states, sources):
    found = AssetRun(states).complete(tune(kubeconfig, **remembering(sources)))
    champion(states, learning_rate=0.5)
    again = AssetRun(states).complete(tune(kubeconfig, **remembering(sources)))
    best = {"parameters": {"learning_rate": 0.5}, "metrics": {"eval_loss": 0.1}, "artifact_uri": "/models/best"}
    assert again == {**found, "unchanged": True, "champion": best}


def judge(kubeconfig: str, **settings: Any) -> EvaluateLLMOperator:
    connection = {"kubernetes_conn_id": None, "config_file": kubeconfig, "image": STAND_IN}
    return EvaluateLLMOperator(task_id="judge", **connection, **settings)


def test_the_champion_needs_no_evaluation_on_the_data_on_which_it_was_trained(kubeconfig, states, sources, ask):
    settings = remembering(sources, trainer_args={"max_eval_samples": 8})
    trained = AssetRun(states).complete(fine_tune(kubeconfig, output_uri="/models/a", **settings))
    run = AssetRun(states)
    judged = run.complete(judge(kubeconfig, adapter="/models/a", **settings))
    assert judged["unchanged"] is True
    assert (judged["metrics"], judged["artifact_uri"]) == (trained["metrics"], "/models/a")
    assert made(ask, job.KIND, run) == []


@pytest.mark.parametrize("change", ["adapter", "settings", "data", "base model"])
def test_on_anything_else_it_is_evaluated_once(kubeconfig, states, sources, change):
    settings = remembering(sources, trainer_args={"max_eval_samples": 8})
    AssetRun(states).complete(fine_tune(kubeconfig, output_uri="/models/a", **settings))
    asked = {**settings, "adapter": "/models/a"}
    if change == "adapter":
        asked["adapter"] = "/models/b"
    elif change == "settings":
        asked["trainer_args"] = {"max_eval_samples": 9}
    elif change == "base model":
        asked["adapter"] = None
    else:
        Path(sources["dataset"], "more.jsonl").write_text("{}\n")
    assert "unchanged" not in AssetRun(states).complete(judge(kubeconfig, **asked))
    assert AssetRun(states).complete(judge(kubeconfig, **asked))["unchanged"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"learning_rate": search.log_uniform(1e-5, 1e-2)}},
        {"max_trial_count": 2},
        {"trainer_args": {"max_steps": 3}},
        {"algorithm_settings": {"random_state": 2}},
        {"objective_goal": 0.1},
        {"version_options": {"dataset_version": "2"}},
        {"model_asset": Asset("another model")},
        {"skip_if_unchanged": "{{ false }}"},
        {"data": "more"},
    ],
    ids=str,
)
def test_a_tuning_with_anything_changed_runs(kubeconfig, states, sources, changes):
    AssetRun(states).complete(tune(kubeconfig, **remembering(sources)))
    if changes.pop("data", None):
        Path(sources["dataset"], "more.jsonl").write_text("{}\n")
    assert "unchanged" not in AssetRun(states).complete(tune(kubeconfig, **{**remembering(sources), **changes}))


def test_a_result_that_a_template_asked_for_anew_is_the_one_that_is_remembered(kubeconfig, states, sources):
    AssetRun(states).complete(tune(kubeconfig, **remembering(sources)))
    forced = AssetRun(states).complete(tune(kubeconfig, **remembering(sources, skip_if_unchanged="{{ false }}")))
    assert "unchanged" not in forced
    assert AssetRun(states).complete(tune(kubeconfig, **remembering(sources))) == {
        **forced,
        "unchanged": True,
        "champion": None,
    }


def test_a_model_asset_that_is_none_is_told_when_the_dag_is_parsed(kubeconfig):
    with pytest.raises(InvalidSpecError, match="`model_asset`='model' is no Airflow asset"):
        tune(kubeconfig, model_asset="model")


def test_a_cleared_task_runs_again_and_a_retry_takes_up_its_own(kubeconfig, states, sources):
    run = AssetRun(states)
    operator = tune(kubeconfig, **remembering(sources))
    first = run.complete(operator)
    assert run.complete(operator) == first
    run.clear()
    again = run.complete(operator)
    assert again["experiment"] != first["experiment"]
    assert "unchanged" not in again


def test_data_that_changes_while_the_trials_run_is_not_taken_for_what_they_saw(kubeconfig, states, sources):
    run = AssetRun(states)
    operator = tune(kubeconfig, **remembering(sources))
    run.defer(operator)
    Path(sources["dataset"], "more.jsonl").write_text("{}\n")
    run.complete(operator)
    assert "unchanged" not in AssetRun(states).complete(operator)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "pvc://data/rows"}, ["`dataset`", "in its pods only", "'dataset_version': ..."]),
        ({"model": "/no/such/model"}, ["`model`", "no such path where the task runs", "'model_version': ..."]),
        ({"model_asset": None}, ["`skip_if_unchanged`", "Asset("]),
        ({"skip_if_unchanged": "maybe"}, ["`skip_if_unchanged`='maybe'", "neither true nor false"]),
        ({"skip_if_unchanged": "maybe", "on_kill_action": "stop"}, ["`skip_if_unchanged`", "`on_kill_action`='stop'"]),
        ({"version_options": {"dataset": "2"}}, ["`version_options.dataset`", "did you mean `dataset_version`?"]),
        (
            {"version_options": {"dataset_version": "{{ none }}"}},
            ["`version_options.dataset_version`='None'", "no value"],
        ),
        ({"version_options": {"model_version": ""}}, ["`version_options.model_version`=''", "no value"]),
        ({"warm_start": {"parameters": {"learning_rate": 0.001}}}, ["`warm_start`=", "none of the parameters"]),
        ({"max_trial_count": 0, "model_asset": None}, ["`max_trial_count`", "`skip_if_unchanged`"]),
        ({"warm_start": "champion", "model_asset": None, "skip_if_unchanged": False}, ["`warm_start`='champion'"]),
        ({"warm_start": [1]}, ["`warm_start`", "is no starting point"]),
        ({"warm_start_scale": "2"}, ["`warm_start_scale`='2'"]),
        ({"warm_start": "no-such-experiment"}, ["`warm_start`='no-such-experiment'", "in namespace default"]),
        ({"warm_start": "no-such-experiment", "poll_interval": 0}, ["`poll_interval`=0 is not above zero"]),
        ({"warm_start": "None", "max_trial_count": 0}, ["`warm_start`='None' is not a name", "`max_trial_count`=0"]),
    ],
)
def test_what_cannot_work_fails_the_task_before_anything_is_created(kubeconfig, states, sources, ask, changes, words):
    run = AssetRun(states)
    with pytest.raises(AirflowFailException) as caught:
        run.complete(tune(kubeconfig, **{**remembering(sources), **changes}))
    assert [word for word in words if word not in str(caught.value)] == []
    assert made(ask, experiment.KIND, run) == []


def test_a_starting_point_that_the_task_before_did_not_return_is_told(kubeconfig, states):
    operator = tune(kubeconfig, warm_start={"learning_rate": 0.001})
    operator.warm_start = None  # what an XCom that is not there renders to
    with pytest.raises(AirflowFailException, match="`warm_start`=None was given and has no value now"):
        AssetRun(states).complete(operator)


def champion(states: AssetStates, **parameters: Any) -> None:
    lineage = {"dag_id": "dag", "run_id": "before", "run_after": datetime(2026, 11, 1, tzinfo=UTC).isoformat()}
    best = {"parameters": parameters, "metrics": {"eval_loss": 0.1}, "artifact_uri": "/models/best"}
    states[MODEL].set(CHAMPION, {"schema_version": 1, **best, "lineage": lineage, "promoted_at": "then"})


def space_of(ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    found = ask(lambda client: client.get(experiment.KIND, "default", result["experiment"]))
    return {entry["name"]: entry["feasibleSpace"] for entry in found["spec"]["parameters"]}


def test_a_warm_start_searches_around_the_champion(kubeconfig, states, ask):
    champion(states, learning_rate=1e-3, lora_r=8, max_steps=100)
    operator = tune(kubeconfig, model_asset=MODEL, warm_start="champion")
    result = AssetRun(states).complete(operator)
    space = space_of(ask, result)
    assert float(space["learning_rate"]["min"]) == pytest.approx(10**-3.5, rel=1e-4)
    assert float(space["learning_rate"]["max"]) == pytest.approx(10**-2.5, rel=1e-4)
    assert 10**-3.6 <= result["parameters"]["learning_rate"] <= 10**-2.4


@pytest.mark.parametrize("start", ["champion", {}], ids=str)  # {}: the parameters of GetChampionOperator
def test_without_a_champion_the_whole_space_is_searched(kubeconfig, states, ask, start):
    result = AssetRun(states).complete(tune(kubeconfig, model_asset=MODEL, warm_start=start))
    assert space_of(ask, result)["learning_rate"]["max"] == "0.1"


def test_a_warm_start_takes_parameters_or_a_finished_experiment(kubeconfig, states, ask):
    before = AssetRun(states).complete(tune(kubeconfig))
    spaces = []
    for start in (before["parameters"], before["experiment"]):
        result = AssetRun(states).complete(tune(kubeconfig, warm_start=start, warm_start_scale="0.5"))
        spaces.append(space_of(ask, result))
    assert spaces[0] == spaces[1]
    low, high = (float(spaces[0]["learning_rate"][end]) for end in ("min", "max"))
    assert low <= before["parameters"]["learning_rate"] <= high
    assert high / low == pytest.approx(100, rel=1e-3)


def test_a_new_champion_alone_is_no_reason_to_search_again(kubeconfig, states, sources):
    settings = remembering(sources, warm_start="champion")
    AssetRun(states).complete(tune(kubeconfig, **settings))
    champion(states, learning_rate=1e-3)
    assert AssetRun(states).complete(tune(kubeconfig, **settings))["unchanged"] is True
