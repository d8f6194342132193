"""What the author of a DAG chooses: over clears, edits, deadlines and failures, and for what is left at the end."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import (
    ExperimentFailedError,
    ForeignObjectError,
    KubernetesApiError,
    OutcomeError,
    StaleObjectError,
    SupersededError,
    WaitTimeoutError,
)
from airflow_llmtune.operators.claim import Claim, attempt_of
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.triggers.base import API_ERROR
from clients import http_client
from tasks import LOSS, any_experiment, names, one_good_trial, raw_experiment, tune

LONG = {"nap": 60}


@pytest.fixture
def uneven(kubeconfig, tmp_path):
    """Make the operator of an Experiment whose first trial succeeds at once."""

    def make(others, *, settings=None, **spec):
        return any_experiment(kubeconfig, one_good_trial(tmp_path, others, **spec), **(settings or {}))

    return make


def attempts(found):
    return [attempt_of(item) for item in found]


def test_a_clear_while_it_runs_ends_it_and_starts_afresh(kubeconfig, run, standing):
    old = run.defer(tune(kubeconfig, trainer_args=LONG))
    run.clear()
    new = run.defer(tune(kubeconfig, trainer_args=LONG))
    assert names(standing()) == [new.name]
    assert new.name != old.name
    # What was found before it went is told.
    assert run.xcoms["progress"]["max_trials"] == 3


def test_a_clear_while_it_runs_goes_on_with_it_where_the_author_wants_that(kubeconfig, run, standing):
    old = run.defer(tune(kubeconfig, trainer_args=LONG, on_clear="adopt"))
    run.clear()
    new = run.defer(tune(kubeconfig, trainer_args=LONG, on_clear="adopt"))
    assert (new.name, new.uid) == (old.name, old.uid)
    # A retry after that is of the same epoch.
    assert run.defer(tune(kubeconfig, trainer_args=LONG, on_clear="adopt")).uid == old.uid


def test_a_clear_after_success_returns_the_same_result_where_the_author_wants_that(kubeconfig, run, standing):
    first = run.complete(tune(kubeconfig, on_clear="adopt"))
    run.clear()
    assert run.complete(tune(kubeconfig, on_clear="adopt")) == first
    assert attempts(standing()) == [1]


def test_changed_arguments_are_ignored_where_the_author_wants_that(kubeconfig, run, standing):
    old = run.defer(tune(kubeconfig, trainer_args=LONG))
    assert run.defer(tune(kubeconfig, trainer_args={"nap": 0}, on_stale="adopt")).uid == old.uid


def test_changed_arguments_fail_and_leave_all_as_it_is_where_the_author_wants_that(kubeconfig, run, standing):
    old = run.defer(tune(kubeconfig, trainer_args=LONG))
    with pytest.raises(StaleObjectError, match="other arguments"):
        run.complete(tune(kubeconfig, trainer_args={"nap": 0}, on_stale="fail"))
    assert names(standing()) == [old.name]


def test_a_try_that_was_given_up_and_wakes_up_again_touches_nothing(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG)
    trigger = run.defer(operator)
    lost = run.context()
    run.defer(operator)
    (before,) = standing()
    # Before its create, in its last phase, and when its supervisor stops it at last.
    with pytest.raises(SupersededError, match="belongs to a newer try"):
        operator.execute(lost)
    event = Outcome("Failed", "WaitTimeout", "late").to_event(trigger.name, trigger.namespace, trigger.uid)
    with pytest.raises(SupersededError):
        operator.execute_complete(lost, event)
    asyncio.run(operator.abandon(Claim.of(lost)))
    (after,) = standing()
    assert (after["metadata"]["uid"], after["metadata"]["annotations"]) == (
        before["metadata"]["uid"],
        before["metadata"]["annotations"],
    )


def test_another_airflow_with_the_same_dag_gets_a_clear_refusal(kubeconfig, run, standing, monkeypatch):
    monkeypatch.setenv("AIRFLOW__LLMTUNE__SITE", "staging")
    trigger = run.defer(tune(kubeconfig, trainer_args=LONG))
    monkeypatch.setenv("AIRFLOW__LLMTUNE__SITE", "production")
    with pytest.raises(ForeignObjectError, match="belongs to this task of the Airflow 'staging'"):
        run.complete(tune(kubeconfig, trainer_args=LONG))
    assert names(standing()) == [trigger.name]


def test_who_adopts_an_object_that_changes_at_that_moment_looks_again(plane, kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG)
    run.defer(operator)
    plane.faults.add(path="/experiments/dag-task-", method="PATCH", code=409, times=2)
    assert names(standing()) == [run.defer(operator).name]


def test_a_create_whose_answer_was_lost_creates_nothing_more(plane, kubeconfig, run, standing):
    plane.faults.add(path="/experiments", method="POST", cut_body_after=5)
    operator = tune(kubeconfig, trainer_args=LONG)
    trigger = run.defer(operator)
    assert names(standing()) == [trigger.name]
    assert attempts(standing()) == [1]


def test_what_the_server_refuses_is_not_tried_again(plane, kubeconfig, run, standing):
    plane.faults.add(path="/experiments", method="POST", code=422, message="it is too large")
    with pytest.raises(AirflowFailException, match=r"was refused: .*it is too large"):
        run.complete(tune(kubeconfig))
    assert standing() == []


def test_the_best_so_far_is_the_result_when_the_time_is_over(uneven, run, standing):
    settings = {"timeout": timedelta(seconds=8), "on_timeout": "use_best"}
    operator = uneven("sleep 60", settings=settings, parallelTrialCount=1)
    result = run.complete(operator)
    assert result["partial"] is True
    assert (result["counts"]["succeeded"], set(result["parameters"])) == (1, {"lr", "layers"})
    assert standing() == []
    # The worker died before Airflow had the result, and its time is over: it is returned all the same.
    assert run.complete(operator) == result
    assert standing() == []


def test_the_best_so_far_needs_the_trials_that_the_author_demands(uneven, run, standing):
    settings = {"timeout": timedelta(seconds=6), "on_timeout": "use_best", "min_succeeded_trials": 2}
    with pytest.raises(AirflowFailException, match="deadline"):
        run.complete(uneven("sleep 60", settings=settings, parallelTrialCount=1))
    assert standing() == []


def test_what_the_author_keeps_runs_on_after_the_time_is_over(uneven, run, standing):
    settings = {"timeout": timedelta(seconds=6), "on_timeout": "use_best", "on_kill_action": "keep"}
    result = run.complete(uneven("sleep 60", settings=settings, parallelTrialCount=1))
    assert names(standing()) == [result["experiment"]]


def test_the_time_is_counted_over_all_tries(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG, timeout=timedelta(seconds=2))
    for told in ("deadline", "nothing was created"):  # by a retry, which Airflow does not start
        with pytest.raises(AirflowFailException, match=told) as caught:
            run.complete(operator)
        assert isinstance(caught.value.__cause__, WaitTimeoutError)
    assert standing() == []
    # A human gives it another chance.
    run.clear()
    trigger = run.defer(operator)
    assert names(standing()) == [trigger.name]


def test_each_try_has_airflow_s_own_timeout_for_itself(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG, execution_timeout=timedelta(seconds=2))
    for _ in range(2):
        with pytest.raises(WaitTimeoutError, match="deadline"):
            run.complete(operator)
        assert standing() == []


def test_a_task_without_a_memory_counts_from_this_try(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG, timeout=timedelta(seconds=30))
    context = {**run.new_try(), "task_state_store": None}
    deadline = operator._deadline(operator._memory(context, Claim.of(context)).first_start(run.start_date), context)
    assert deadline == pytest.approx(time.time() + 30, abs=5)


def test_the_best_trial_of_a_failed_experiment_is_used_where_the_author_wants_that(uneven, run, standing):
    spec = {"maxTrialCount": 4, "parallelTrialCount": 1, "maxFailedTrialCount": 1}
    operator = uneven("exit 1", settings={"on_failure": "use_best"}, **spec)
    result = run.complete(operator)
    assert result["partial"] is True
    assert result["counts"]["failed"] >= 1
    # It is delivered as any result: again to a retry.
    assert run.complete(operator) == result
    assert attempts(standing()) == [1]


def test_a_failed_experiment_without_any_good_trial_is_a_failure(kubeconfig, run, standing):
    spec = {"maxTrialCount": 2, "parallelTrialCount": 1, "maxFailedTrialCount": 1}
    operator = any_experiment(kubeconfig, raw_experiment(f"{LOSS}; exit 1", **spec), on_failure="use_best")
    for attempt in (1, 2):
        with pytest.raises(ExperimentFailedError, match="failed"):
            run.complete(operator)
        assert len(standing()) == attempt


def test_too_few_good_trials_are_a_failure_although_katib_says_success(uneven, run):
    spec = {"maxTrialCount": 2, "parallelTrialCount": 1, "maxFailedTrialCount": 2}
    with pytest.raises(ExperimentFailedError, match="1 succeeded trials of 2, and `min_succeeded_trials` is 2"):
        run.complete(uneven("exit 1", settings={"min_succeeded_trials": 2}, **spec))


@pytest.mark.parametrize("action", ["delete", "delete_succeeded"])
def test_a_finished_experiment_is_deleted_once_its_result_is_safe(kubeconfig, run, standing, action):
    operator = tune(kubeconfig, on_finish_action=action)
    result = run.complete(operator)
    assert standing() == []
    # The worker died before Airflow had the result: the next try has it from the task's state.
    assert run.complete(operator) == result
    assert standing() == []
    run.clear()
    assert run.complete(operator)["trial"] != result["trial"]


def test_nothing_is_deleted_where_its_result_is_not_safe(kubeconfig, run, standing, monkeypatch):
    operator = tune(kubeconfig, on_finish_action="delete")
    monkeypatch.setattr("task_run.StateStore.set", _fail)
    result = run.complete(operator)
    assert names(standing()) == [result["experiment"]]


@pytest.mark.parametrize(("action", "left"), [("delete", 0), ("delete_succeeded", 1), ("keep", 1)])
def test_a_failed_experiment_is_deleted_only_where_the_author_says_so(kubeconfig, run, standing, action, left):
    with pytest.raises(ExperimentFailedError):
        run.complete(tune(kubeconfig, trainer_args={"diverge": True}, on_finish_action=action))
    assert len(standing()) == left


def test_what_cannot_be_watched_any_more_is_left_to_a_retry_and_deleted_when_there_is_none(kubeconfig, run, standing):
    operator = tune(kubeconfig, trainer_args=LONG)
    for left in (1, 0):
        trigger = run.defer(operator)
        event = Outcome("Failed", API_ERROR, "no answer").to_event(trigger.name, trigger.namespace, trigger.uid)
        with pytest.raises(KubernetesApiError, match="no answer"):
            operator.execute_complete(run.context(), event)
        assert len(standing()) == left


@pytest.mark.parametrize("stops", [True, False])
def test_what_katib_itself_leaves_running_is_stopped_unless_the_author_wants_it(tmp_path, run, stops):
    path = str(tmp_path / "kubeconfig.yaml")
    objective = {"type": "minimize", "objectiveMetricName": "loss", "goal": 0.5}
    manifest = raw_experiment(f"mkdir {tmp_path}/first || sleep 60; {LOSS}", objective=objective)
    with ControlPlane(images={"busybox": Path("/usr")}, strict=True) as katib:
        katib.write_kubeconfig(path)
        result = run.complete(any_experiment(path, manifest, stop_leftovers=stops))
        with http_client(katib.kubeconfig) as http:
            trials = http.get("/apis/kubeflow.org/v1beta1/namespaces/default/trials").json()["items"]
    assert result["counts"]["running"] == 1
    left = [item for item in trials if "deletionTimestamp" not in item["metadata"]]
    assert sorted(experiment.read_trial(trial)["finished"] for trial in left) == [True] if stops else [False, True]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"on_stale": "reuse"}, "on_stale"),
        ({"on_clear": "reattach"}, "on_clear"),
        ({"on_timeout": "best"}, "on_timeout"),
        ({"on_failure": "raise"}, "on_failure"),
        ({"on_finish_action": "delete_pod"}, "on_finish_action"),
        ({"on_stall": "ignore"}, "on_stall"),
        ({"startup_timeout": 5}, "startup_timeout"),
        ({"min_succeeded_trials": 0}, "min_succeeded_trials"),
        ({"min_succeeded_trials": 4}, "min_succeeded_trials`=4 is more than the 3 trials"),
    ],
)
def test_a_wrong_policy_is_told_before_anything_is_created(kubeconfig, run, standing, changes, named):
    with pytest.raises(AirflowFailException, match=named):
        run.complete(tune(kubeconfig, **changes))
    assert standing() == []


def test_an_object_deleted_by_hand_is_told_and_a_retry_makes_another(kubeconfig, run, ask, standing):
    operator = tune(kubeconfig, trainer_args=LONG)
    trigger = run.defer(operator)
    ask(lambda client: client.delete(experiment.KIND, "default", trigger.name))
    outcome = asyncio.run(trigger.wait())
    with pytest.raises(OutcomeError, match="was deleted while this task waited"):
        operator.execute_complete(run.context(), outcome.to_event(trigger.name, trigger.namespace, trigger.uid))
    assert run.defer(operator).uid != trigger.uid


def _fail(*_):
    raise RuntimeError("the state store is not there")
