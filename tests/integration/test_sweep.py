"""What ended tasks have left running is found and deleted; nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.hooks.orphans import KINDS
from airflow_llmtune.operators import sweep
from airflow_llmtune.operators.sweep import SweepOrphansOperator
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import WAITED_FOR
from airflow_llmtune.triggers.task_state import ENDED_STATES
from held_jobs import new_namespace
from task_run import Run
from tasks import fine_tune, tune

LONG = {"trainer_args": {"nap": 60}}


@pytest.fixture(autouse=True)
def site(monkeypatch):
    monkeypatch.setenv("AIRFLOW__LLMTUNE__SITE", "here")


@pytest.fixture
def namespace(plane):
    """One that no other test sweeps."""
    return new_namespace(plane)


@pytest.fixture
def airflow_says(monkeypatch) -> Callable[[str], list[Any]]:
    """Set the state of all tasks, which a worker asks its supervisor for; return the tasks that are asked for."""

    def say(state: str) -> list[Any]:
        asked: list[Any] = []
        monkeypatch.setattr(sweep, "task_state", lambda key: asked.append(key) or state)
        return asked

    return say


@pytest.fixture
def left(ask, namespace):
    """The names of all objects that are there and stay."""

    def names() -> list[str]:
        found = []
        for kind in KINDS.values():
            items, _ = ask(lambda client, kind=kind: client.list_all(kind, namespace, label_selector=WAITED_FOR))
            found += [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]
        return found

    return names


@pytest.fixture
def swept(kubeconfig, namespace):
    def run(**changes: Any) -> dict[str, Any]:
        settings = {"min_age": timedelta(microseconds=1), "namespace": namespace, **changes}
        operator = SweepOrphansOperator(task_id="sweep", kubernetes_conn_id=None, config_file=kubeconfig, **settings)
        return operator.execute({})

    return run


@pytest.mark.parametrize("state", sorted(ENDED_STATES))
def test_what_an_ended_task_has_left_is_deleted(kubeconfig, run, namespace, airflow_says, swept, left, state):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    asked = airflow_says(state)
    told = swept()
    assert told == {
        "namespace": namespace,
        "found": 1,
        "orphans": [f"Experiment/{name}"],
        "deleted": [f"Experiment/{name}"],
        "kept": {},
    }
    assert asked == [("dag", "task", run.run_id, -1)]
    assert left() == []


@pytest.mark.parametrize("state", ["queued", "running", "deferred", "up_for_retry", "restarting", "cleared"])
def test_what_is_waited_for_is_left_alone(kubeconfig, run, namespace, airflow_says, swept, left, state):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    airflow_says(state)
    told = swept()
    assert (told["deleted"], told["kept"]) == ([], {f"its task is {state}": [f"Experiment/{name}"]})
    assert left() == [name]


def test_every_kind_is_swept_and_a_mapped_task_is_told_from_its_siblings(
    kubeconfig, namespace, monkeypatch, swept, left
):
    kinds = [{}, {"num_nodes": 2}, {"job_kind": "TrainJob", "runtime_ref": "torch-distributed"}]
    trigger = Run().defer(tune(kubeconfig, namespace=namespace, **LONG))
    names = [f"Experiment/{trigger.name}"]
    for index, options in enumerate(kinds):
        trigger = Run(map_index=index).defer(fine_tune(kubeconfig, namespace=namespace, job_options=options, **LONG))
        names.append(f"{trigger.kind.kind}/{trigger.name}")
    monkeypatch.setattr(sweep, "task_state", lambda key: "running" if key.map_index == 1 else "failed")
    told = swept()
    kept = next(name for name in names if name.startswith("PyTorchJob"))
    assert told["kept"] == {"its task is running": [kept]}
    assert sorted(told["deleted"]) == sorted(set(names) - {kept})
    assert left() == [kept.partition("/")[2]]


def test_only_the_kinds_that_are_asked_for_are_swept(kubeconfig, run, namespace, airflow_says, swept, left):
    run.defer(tune(kubeconfig, namespace=namespace, **LONG))
    airflow_says("failed")
    assert swept(kinds=["Job", "TrainJob"])["found"] == 0
    assert len(left()) == 1


@pytest.mark.parametrize("dry_run", [True, "True"])
def test_a_dry_run_only_tells(kubeconfig, run, namespace, airflow_says, swept, left, dry_run):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    airflow_says("failed")
    told = swept(dry_run=dry_run)
    assert (told["orphans"], told["deleted"]) == ([f"Experiment/{name}"], [])
    assert left() == [name]


@pytest.mark.parametrize(
    ("theirs", "why"), [("there", "it is of another Airflow"), ("", "it does not tell of which Airflow")]
)
def test_what_another_airflow_made_is_never_touched(
    kubeconfig, run, namespace, monkeypatch, airflow_says, swept, left, theirs, why
):
    """Its runs may have the very same names, and this Airflow knows nothing of them."""
    monkeypatch.setenv("AIRFLOW__LLMTUNE__SITE", theirs)
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    monkeypatch.setenv("AIRFLOW__LLMTUNE__SITE", "here")
    asked = airflow_says("removed")
    assert swept()["kept"] == {why: [f"Experiment/{name}"]}
    assert asked == []
    assert left() == [name]


def test_the_base_url_will_do_for_the_site(kubeconfig, run, namespace, monkeypatch, airflow_says, swept):
    monkeypatch.delenv("AIRFLOW__LLMTUNE__SITE")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/")
    run.defer(tune(kubeconfig, namespace=namespace, **LONG))
    airflow_says("failed")
    assert len(swept(dry_run="False")["deleted"]) == 1


def test_what_its_author_keeps_stays(kubeconfig, run, namespace, airflow_says, swept, left):
    name = run.defer(tune(kubeconfig, namespace=namespace, on_kill_action="keep", **LONG)).name
    airflow_says("failed")
    assert swept()["kept"] == {"its task has on_kill_action='keep'": [f"Experiment/{name}"]}
    assert left() == [name]


def test_what_has_just_been_made_stays(kubeconfig, run, namespace, airflow_says, swept, left):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    airflow_says("failed")
    assert swept(min_age=timedelta(minutes=15))["kept"] == {"it is younger than min_age": [f"Experiment/{name}"]}
    assert left() == [name]


def test_what_has_finished_stays(kubeconfig, run, namespace, airflow_says, swept, left):
    trigger = run.defer(fine_tune(kubeconfig, namespace=namespace))
    asyncio.run(trigger.wait(alone=True))
    airflow_says("failed")
    assert swept()["kept"] == {"it has finished": [f"Job/{trigger.name}"]}
    assert left() == [trigger.name]


def test_what_a_new_try_adopts_meanwhile_is_its_own(kubeconfig, run, namespace, monkeypatch, swept, left):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name

    def ended_and_then_retried(key: Any) -> str:
        assert run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name == name
        return "failed"

    monkeypatch.setattr(sweep, "task_state", ended_and_then_retried)
    told = swept()
    assert (told["orphans"], told["deleted"]) == ([f"Experiment/{name}"], [])
    assert left() == [name]


def test_what_does_not_tell_its_task_stays(kubeconfig, run, namespace, ask, airflow_says, swept):
    name = run.defer(tune(kubeconfig, namespace=namespace, **LONG)).name
    patch = {"metadata": {"annotations": {"airflow-llmtune/task": "[1]"}}}
    ask(lambda client: client.patch(experiment.KIND, namespace, name, patch))
    airflow_says("failed")
    assert swept()["kept"] == {"it does not tell of which task": [f"Experiment/{name}"]}


def test_a_kind_that_the_cluster_does_not_have_is_passed_over(plane, namespace, airflow_says, swept):
    path = KINDS["TrainJob"].path(namespace)
    plane.faults.add(path=path, code=404)
    try:
        assert swept()["found"] == 0
    finally:
        plane.faults.clear()


def test_without_a_site_nothing_is_looked_for(monkeypatch, swept):
    monkeypatch.delenv("AIRFLOW__LLMTUNE__SITE")
    with pytest.raises(AirflowFailException, match="has 5 mistakes") as caught:
        swept(kinds=["Jobs"], min_age=0, namespace="A B", dry_run="perhaps")
    for part in (
        "`[llmtune] site`",
        "did you mean `Job`?",
        "`dry_run`",
        "`min_age`",
        "`namespace`",
        "AIRFLOW__LLMTUNE__SITE",
    ):
        assert part in str(caught.value)
