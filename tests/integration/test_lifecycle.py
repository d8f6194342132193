"""Names, retries, clears, kills, deadlines: what an operator does with objects that are there already."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import nullcontext
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferralTimeout, TaskDeferred

from airflow_llmtune.exceptions import (
    ExperimentFailedError,
    ForeignObjectError,
    KubernetesApiError,
    OutcomeError,
    StalledError,
    WaitTimeoutError,
)
from airflow_llmtune.resources import experiment, job
from airflow_llmtune.resources.meta import Outcome, is_waited_for, object_name, owner_labels
from airflow_llmtune.triggers.base import OBJECT_DELETED, STALLED, WAIT_TIMEOUT
from tasks import LOSS, any_experiment, fine_tune, mine, raw_experiment, tune


def test_a_worker_lost_after_create_adopts_the_running_experiment(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 1})
    run.defer(operator)
    result = run.complete(tune(kubeconfig, trainer_args={"nap": 1}))
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert [item["metadata"]["name"] for item in found] == [result["experiment"]]


def test_a_finished_experiment_whose_result_was_not_delivered_is_used(kubeconfig, run, ask):
    operator = tune(kubeconfig)
    trigger = run.defer(operator)
    asyncio.run(trigger.wait())
    result = run.complete(tune(kubeconfig))
    assert run.deferrals == 0
    assert result["experiment"] == trigger.name


def test_a_cleared_task_starts_afresh_after_its_result_was_delivered(kubeconfig, run):
    first = run.complete(tune(kubeconfig))
    run.clear()
    second = run.complete(tune(kubeconfig))
    assert second["experiment"] != first["experiment"]
    assert second["experiment"].endswith("-2")


def test_a_result_whose_worker_died_before_it_was_stored_is_delivered_again(kubeconfig, run):
    first = run.complete(tune(kubeconfig))
    assert run.complete(tune(kubeconfig)) == first


def test_a_foreign_object_of_our_name_is_refused(kubeconfig, run, ask):
    manifest = raw_experiment(LOSS)
    name = object_name("dag", "task", run.run_id, -1, 1)
    manifest["metadata"] |= {
        "name": name,
        "namespace": "default",
        "labels": owner_labels("other", "t", "r", -1, 1),
    }
    ask(lambda client: client.create(experiment.KIND, "default", manifest))
    with pytest.raises(ForeignObjectError, match="dag_id=other"):
        run.complete(tune(kubeconfig))


def test_trials_that_still_run_when_the_goal_is_reached_are_stopped(kubeconfig, run, ask, tmp_path):
    # mkdir succeeds for exactly one of the two parallel trials; the other would run on for a minute.
    script = "mkdir $MARK || sleep 60; " + LOSS
    manifest = raw_experiment(script, objective={"type": "minimize", "objectiveMetricName": "loss", "goal": 0.5})
    container = manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "MARK", "value": str(tmp_path / "first")}]
    operator = any_experiment(kubeconfig, manifest)
    result = run.complete(operator)
    selector = f"katib.kubeflow.org/experiment={result['experiment']}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        trials, _ = ask(lambda client: client.list_all(experiment.TRIAL_KIND, "default", label_selector=selector))
        if all(experiment.read_trial(trial)["finished"] for trial in trials):
            return
        time.sleep(0.1)
    raise AssertionError("a trial still runs")


def test_a_deadline_ends_the_wait_and_deletes_the_experiment(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 60}, wait_timeout=timedelta(seconds=2))
    with pytest.raises(WaitTimeoutError):
        run.complete(operator)
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert [item for item in found if "deletionTimestamp" not in item["metadata"]] == []


def test_an_experiment_deleted_under_the_task_is_told(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 60})
    trigger = run.defer(operator)
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))
    outcome = asyncio.run(trigger.wait())
    event = outcome.to_event(trigger.name, trigger.namespace, trigger.uid)
    with pytest.raises(OutcomeError, match="deleted"):
        operator.execute_complete(run.context(), event)


def test_an_experiment_that_was_only_missed_is_left_as_it_is_for_a_retry(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 60})
    trigger = run.defer(operator)
    event = Outcome("Failed", OBJECT_DELETED, "gone").to_event(trigger.name, trigger.namespace, trigger.uid)
    with pytest.raises(KubernetesApiError, match="is there"):
        operator.execute_complete(run.context(), event)
    left = ask(lambda client: client.get(experiment.KIND, "default", trigger.name))
    assert is_waited_for(left)
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))


@pytest.mark.parametrize("reason", [WAIT_TIMEOUT, STALLED])
def test_what_ended_while_the_wait_gave_up_is_used(kubeconfig, run, reason):
    operator = tune(kubeconfig)
    trigger = run.defer(operator)
    asyncio.run(trigger.wait())
    event = Outcome("Failed", reason, "too late").to_event(trigger.name, trigger.namespace, trigger.uid)
    assert operator.execute_complete(run.context(), event)["experiment"] == trigger.name


def test_what_stalls_is_deleted_and_told_as_that(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 60}, stall_timeout=timedelta(seconds=3))
    with pytest.raises(StalledError, match="got no further for 3 s"):
        run.complete(operator)
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert [item for item in found if "deletionTimestamp" not in item["metadata"]] == []


@pytest.mark.parametrize(("action", "left"), [("delete", False), ("keep", True)])
def test_a_kill_in_the_middle_of_a_worker_s_wait_deletes_what_the_task_created(kubeconfig, run, ask, action, left):
    operator = tune(kubeconfig, trainer_args={"nap": 2}, deferrable=False, on_kill_action=action)
    # Airflow calls on_kill from its handler of SIGTERM, on the thread that waits.
    signal.signal(signal.SIGALRM, lambda *_: operator.on_kill())
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with nullcontext() if left else pytest.raises(OutcomeError, match="deleted"):
            operator.execute(run.new_try())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert bool([item for item in found if "deletionTimestamp" not in item["metadata"]]) == left


@pytest.mark.parametrize(
    ("error", "tries", "left"),
    [("Trigger failure", 1, True), ("Trigger failure", 2, False), ("Trigger timeout", 1, False)],
)
def test_a_lost_trigger_leaves_the_object_only_to_a_retry(kubeconfig, run, ask, error, tries, left):
    operator = tune(kubeconfig, trainer_args={"nap": 30})
    for _ in range(tries):
        trigger = run.defer(operator)
    with pytest.raises((TaskDeferralError, TaskDeferralTimeout)):
        operator.resume_execution("__fail__", {"error": error}, run.context())
    found = ask(lambda client: client.find(experiment.KIND, "default", trigger.name))
    assert (found is not None and "deletionTimestamp" not in found["metadata"]) == left
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))


def test_changed_arguments_replace_what_still_runs_for_the_old_ones(kubeconfig, run, ask):
    old = run.defer(tune(kubeconfig, trainer_args={"nap": 30}))
    result = run.complete(tune(kubeconfig, trainer_args={"nap": 0}))
    assert result["experiment"] != old.name
    gone = ask(lambda client: client.find(experiment.KIND, "default", old.name))
    assert gone is None or "deletionTimestamp" in gone["metadata"]


def test_another_run_of_the_same_name_does_not_get_the_old_result(kubeconfig, run):
    first = run.complete(tune(kubeconfig))
    run.run_after += timedelta(seconds=1)
    assert run.complete(tune(kubeconfig))["experiment"] != first["experiment"]


def test_an_experiment_whose_trials_all_diverged_fails_and_a_retry_starts_another(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"diverge": True})
    for attempt in (1, 2):
        with pytest.raises(ExperimentFailedError, match="lower the range"):
            run.complete(operator)
        found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
        assert len(found) == attempt


def test_tasks_of_one_mapped_task_have_objects_of_their_own(kubeconfig, run):
    results = []
    for run.map_index in (0, 1):
        run.try_number = 0
        results.append(run.complete(tune(kubeconfig)))
    assert results[0]["experiment"] != results[1]["experiment"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"on_kill_action": "keep_pod"}, "on_kill_action"),
        ({"wait_timeout": 3600}, "wait_timeout"),
        ({"stall_timeout": timedelta()}, "stall_timeout.*above zero"),
        ({"poll_interval": 0}, "poll_interval.*above zero"),
    ],
)
def test_a_wrong_lifecycle_argument_is_told_before_anything_is_created(kubeconfig, run, ask, changes, named):
    with pytest.raises(AirflowFailException, match=named):
        run.complete(tune(kubeconfig, **changes))
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert found == []


def test_a_deadline_gives_airflow_a_later_one_for_a_trigger_that_never_runs(kubeconfig, run):
    operator = tune(kubeconfig, trainer_args={"nap": 30}, execution_timeout=timedelta(seconds=60))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(run.new_try())
    assert timedelta(seconds=100) < deferred.value.timeout < timedelta(seconds=200)
    operator.on_kill()


def test_a_job_that_is_gone_before_it_finished_is_told(kubeconfig, run, ask):
    operator = fine_tune(kubeconfig, trainer_args={"nap": 60})
    trigger = run.defer(operator)
    ask(lambda client: client.delete(job.KIND, "default", trigger.name))
    assert asyncio.run(trigger.wait()).reason == "ObjectDeleted"
