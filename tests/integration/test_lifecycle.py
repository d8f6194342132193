"""Names, retries, clears, kills, deadlines: what an operator does with objects that are there already."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferralTimeout, TaskDeferred

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import (
    ExperimentFailedError,
    ForeignObjectError,
    KubernetesApiError,
    OutcomeError,
    StalledError,
    WaitTimeoutError,
)
from airflow_llmtune.operators.claim import attempt_of
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.resources import experiment, job
from airflow_llmtune.resources.meta import Outcome, is_waited_for, object_name, owner_labels
from airflow_llmtune.triggers.base import OBJECT_DELETED, STALLED, WAIT_TIMEOUT
from tasks import LOSS, fine_tune, mine, raw_experiment, tune
from waiting import wait_for


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


def test_a_deadline_ends_the_wait_and_deletes_the_experiment(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args={"nap": 60}, timeout=timedelta(seconds=2))
    with pytest.raises(AirflowFailException, match="did not finish before its deadline"):
        run.complete(operator)
    assert standing() == []


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


def test_what_stalls_is_deleted_and_told_as_that(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args={"nap": 60}, stall_timeout=timedelta(seconds=3))
    with pytest.raises(StalledError, match="got no further for 3 s"):
        run.complete(operator)
    assert standing() == []


@contextmanager
def killed_while_it_waits(plane: ControlPlane, operator: KatibTuneLLMOperator) -> Iterator[None]:
    """Call on_kill as Airflow does: from a signal's handler, on the thread that waits."""
    watches = ("watch", "experiments.kubeflow.org")
    before, waiting = plane.requests[watches], threading.get_ident()

    def kill() -> None:
        wait_for(lambda: plane.requests[watches] > before)
        signal.pthread_kill(waiting, signal.SIGTERM)

    killer = threading.Thread(target=kill)
    handler = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    killer.start()
    try:
        yield
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("state", "tries", "settings", "left"),
    [
        ("failed", 1, {}, False),
        ("success", 1, {}, False),
        ("removed", 1, {}, False),
        ("failed", 1, {"on_kill_action": "keep"}, True),
        # The worker is shut down; the next try adopts what runs, and there has to be one.
        ("running", 1, {}, True),
        ("running", 2, {}, False),
        # A human has cleared it.
        ("restarting", 1, {}, False),
        ("restarting", 1, {"on_clear": "adopt"}, True),
    ],
)
def test_a_kill_in_the_middle_of_a_worker_s_wait_deletes_what_nobody_comes_back_for(
    plane, kubeconfig, run, standing, airflow_says, state, tries, settings, left
):
    airflow_says(state)
    operator = tune(kubeconfig, trainer_args={"nap": 2}, deferrable=False, **settings)
    run.try_number = tries - 1
    with (
        killed_while_it_waits(plane, operator),
        nullcontext() if left else pytest.raises(OutcomeError, match="deleted"),
    ):
        operator.execute(run.new_try())
    assert bool(standing()) == left
    assert left or run.xcoms["progress"]["max_trials"] == 3


@pytest.mark.parametrize("tries", [1, 2])
def test_a_kill_whose_task_state_cannot_be_read_deletes_nothing(kubeconfig, run, ask, standing, tries):
    operator = tune(kubeconfig, trainer_args={"nap": 30})
    for _ in range(tries):
        trigger = run.defer(operator)
    operator._begin(run.context())
    operator.on_kill()  # There is no supervisor to ask here.
    assert len(standing()) == 1
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))


@pytest.mark.parametrize(("tries", "left"), [(1, True), (2, False)])
def test_a_failed_trigger_leaves_the_object_only_to_a_retry(kubeconfig, run, ask, standing, tries, left):
    operator = tune(kubeconfig, trainer_args={"nap": 30})
    for _ in range(tries):
        trigger = run.defer(operator)
    with pytest.raises(TaskDeferralError):
        operator.resume_execution("__fail__", {"error": "Trigger failure"}, run.context())
    assert bool(standing()) == left
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))


def test_a_wait_that_no_triggerer_took_up_ends_as_any_other(kubeconfig, run, standing):
    never_told = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger timeout"}}
    operator = tune(kubeconfig)
    trigger = run.defer(operator)
    asyncio.run(trigger.wait())
    # It has ended meanwhile: nothing is lost.
    result = operator.resume_execution(**never_told, context=run.context())
    assert result["experiment"] == trigger.name
    run.clear()
    operator = tune(kubeconfig, trainer_args={"nap": 60})
    run.defer(operator)
    with pytest.raises(WaitTimeoutError, match="no triggerer told so"):
        operator.resume_execution(**never_told, context=run.context())
    assert [attempt_of(item) for item in standing()] == [1]
    # Somebody has deleted it: what Airflow says is all there is.
    with pytest.raises(TaskDeferralTimeout):
        operator.resume_execution(**never_told, context=run.new_try())


def test_changed_arguments_replace_what_still_runs_for_the_old_ones(kubeconfig, run, ask):
    old = run.defer(tune(kubeconfig, trainer_args={"nap": 30}))
    result = run.complete(tune(kubeconfig, trainer_args={"nap": 0}))
    assert result["experiment"] != old.name
    gone = ask(lambda client: client.find(experiment.KIND, "default", old.name))
    assert gone is None or "deletionTimestamp" in gone["metadata"]


def test_another_run_of_the_same_name_does_not_get_the_old_result(kubeconfig, run):
    first = run.complete(tune(kubeconfig))
    run.try_number = 0  # and with the same times: that of a schedule
    assert run.complete(tune(kubeconfig))["experiment"] != first["experiment"]


def test_an_experiment_whose_trials_all_diverged_fails_and_a_retry_starts_another(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"diverge": True})
    for attempt in (1, 2):
        with pytest.raises(ExperimentFailedError, match="lower the range"):
            run.complete(operator)
        found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
        assert len(found) == attempt


def test_the_worst_of_a_metric_that_should_be_high_is_no_result_either(kubeconfig, run):
    objective = {"objective_metric_name": "eval_f1", "objective_type": "maximize"}
    with pytest.raises(ExperimentFailedError, match="all of them diverged"):
        run.complete(tune(kubeconfig, trainer_args={"diverge": True}, **objective))


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
        ({"timeout": 3600}, "timeout"),
        ({"stall_timeout": timedelta()}, "stall_timeout.*above zero"),
        ({"poll_interval": 0}, "poll_interval.*above zero"),
    ],
)
def test_a_wrong_lifecycle_argument_is_told_before_anything_is_created(kubeconfig, run, ask, changes, named):
    with pytest.raises(AirflowFailException, match=named):
        run.complete(tune(kubeconfig, **changes))
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert found == []


def test_a_deadline_gives_airflow_a_later_one_for_a_trigger_that_never_runs(kubeconfig, run, ask):
    operator = tune(kubeconfig, trainer_args={"nap": 30}, execution_timeout=timedelta(seconds=60))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(run.new_try())
    assert timedelta(seconds=100) < deferred.value.timeout < timedelta(seconds=200)
    ask(lambda client: client.delete(experiment.KIND, "default", deferred.value.trigger.name))


def test_a_job_that_is_gone_before_it_finished_is_told(kubeconfig, run, ask):
    operator = fine_tune(kubeconfig, trainer_args={"nap": 60})
    trigger = run.defer(operator)
    ask(lambda client: client.delete(job.KIND, "default", trigger.name))
    assert asyncio.run(trigger.wait()).reason == "ObjectDeleted"
