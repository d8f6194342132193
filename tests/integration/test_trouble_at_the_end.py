"""A try that dies, is refused or is disturbed in its last steps: nothing of it is lost, hidden, or left running."""

from __future__ import annotations

import asyncio
import copy
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException
from uuid6 import uuid7

from airflow_llmtune.exceptions import ExperimentFailedError, KubernetesApiError, SupersededError
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.credentials import Credentials
from airflow_llmtune.resources.meta import OWNER_ANNOTATION
from airflow_llmtune.triggers import base
from tasks import any_experiment, names, one_good_trial, tune

LONG = {"nap": 60}
SOON = {"api_retry_timeout": 1.0}
FOREVER = 10_000
NO_TRIALS = (
    'trials.kubeflow.org is forbidden: User "system:serviceaccount:a:b" cannot list resource "trials" in API group '
    '"kubeflow.org" in the namespace "default"'
)


class Died(BaseException):
    """Stands for a SIGKILL: nothing of ours catches it."""


@pytest.fixture(autouse=True)
def _no_fault_outlives_its_test(plane):
    yield
    plane.faults.clear()


def test_who_dies_before_the_rest_is_deleted_leaves_that_to_the_next_try(
    kubeconfig, run, standing, tmp_path, monkeypatch
):
    manifest = one_good_trial(tmp_path, "sleep 60", parallelTrialCount=1)
    operator = any_experiment(kubeconfig, manifest, timeout=timedelta(seconds=8), on_timeout="use_best")
    with monkeypatch.context() as patch:
        patch.setattr(type(operator), "_clear_away", _die)
        with pytest.raises(Died):
            run.complete(operator)
    assert len(standing()) == 1
    assert run.complete(operator)["partial"] is True
    assert standing() == []


def test_trials_that_may_not_be_read_cost_no_result(plane, kubeconfig, run, standing):
    plane.faults.add(r"/trials\?", method="GET", code=403, message=NO_TRIALS, times=FOREVER)
    assert run.complete(tune(kubeconfig))["experiment"] in names(standing())


async def test_trials_that_may_not_be_read_hold_no_deletion_up(plane, kubeconfig, run, monkeypatch):
    trigger = await asyncio.to_thread(run.defer, tune(kubeconfig, trainer_args=LONG))
    trigger.task_instance = SimpleNamespace(id=run.ti_id, dag_id="dag", task_id="task", run_id=run.run_id, map_index=-1)
    monkeypatch.setattr(base, "task_state", lambda ti: "failed")
    plane.faults.add(r"/trials\?", method="GET", code=403, message=NO_TRIALS, times=FOREVER)
    await trigger.on_kill()
    async with trigger.hook.connect() as client:
        left = await client.find(experiment.KIND, "default", trigger.name)
    assert left is None or "deletionTimestamp" in left["metadata"]


@pytest.mark.parametrize("fails", [True, False])
def test_an_xcom_that_cannot_be_pushed_neither_hides_a_failure_nor_costs_a_result(
    kubeconfig, run, standing, monkeypatch, fails
):
    context = run.context
    monkeypatch.setattr(run, "context", lambda: _without_xcoms(context()))
    if fails:
        with pytest.raises(ExperimentFailedError, match="lower the range"):
            run.complete(tune(kubeconfig, trainer_args={"diverge": True}))
    else:
        assert run.complete(tune(kubeconfig))["experiment"] in names(standing())


def test_a_result_that_cannot_be_marked_as_delivered_is_returned(plane, kubeconfig, run, standing):
    plane.faults.add("/experiments/dag-task-", method="PATCH", code=404, times=FOREVER)
    assert run.complete(tune(kubeconfig))["experiment"] in names(standing())


def test_two_tries_that_adopt_at_once_leave_it_to_the_newer(kubeconfig, run, ask, standing, monkeypatch):
    operator = tune(kubeconfig, trainer_args=LONG)
    first = run.defer(operator)
    run.new_try()
    take_over = type(operator)._take_over

    async def too_late(self, client, obj, claim):
        # The next one, whose worker was faster.
        newer = {"metadata": {"annotations": {OWNER_ANNOTATION: str(uuid7())}}}
        await client.patch(experiment.KIND, "default", first.name, newer)
        return await take_over(self, client, obj, claim)

    monkeypatch.setattr(type(operator), "_take_over", too_late)
    with pytest.raises(SupersededError):
        operator.execute(run.context())
    assert names(standing()) == [first.name]


def test_a_kept_result_of_other_arguments_is_not_the_result(kubeconfig, run, standing):
    first = run.complete(tune(kubeconfig, on_finish_action="delete"))
    again = run.complete(tune(kubeconfig, on_finish_action="delete", max_trial_count=2))
    assert again["counts"]["trials"] == 2 != first["counts"]["trials"]
    assert standing() == []


def test_a_champion_that_moves_between_two_tries_is_no_changed_argument(kubeconfig, run, standing, monkeypatch):
    point = {"learning_rate": 0.001, "lora_r": 8}
    monkeypatch.setattr(KatibTuneLLMOperator, "_champions_point", lambda self, context: dict(point))
    operator = tune(kubeconfig, trainer_args=LONG, warm_start="champion", model_asset=Asset("model"))
    first = run.defer(operator)
    point["learning_rate"] = 0.002
    assert run.defer(operator).uid == first.uid


@pytest.mark.parametrize(("tries", "left"), [(0, 1), (1, 0)])
def test_a_secret_that_cannot_be_made_leaves_the_object_only_to_a_retry(
    plane, kubeconfig, run, standing, monkeypatch, tries, left
):
    token = Credentials({"HF_TOKEN": "x"})
    monkeypatch.setattr(
        "airflow_llmtune.operators.credentials._read", lambda _, name, __: token if name else Credentials()
    )
    run.try_number = tries
    # The rehearsal goes well.
    plane.faults.add(r"/secrets/.*force=true$", method="PATCH", code=500, times=FOREVER)
    with pytest.raises(KubernetesApiError):
        run.complete(tune(kubeconfig, hub_conn_id="hub", trainer_args=LONG, **SOON))
    assert len(standing()) == left


def test_arguments_that_are_wrong_now_end_what_they_were_right_for(kubeconfig, run, standing):
    run.defer(tune(kubeconfig, trainer_args=LONG))
    with pytest.raises(AirflowFailException, match="max_trial_count"):  # after which there is no other try
        run.complete(tune(kubeconfig, trainer_args=LONG, max_trial_count="many"))
    assert standing() == []


def test_a_copy_that_somebody_made_of_an_experiment_is_left_alone(kubeconfig, run, ask, standing, airflow_says):
    operator = tune(kubeconfig, trainer_args=LONG)
    trigger = run.defer(operator)
    made = ask(lambda client: client.get(experiment.KIND, "default", trigger.name))
    copied = {key: copy.deepcopy(made[key]) for key in ("apiVersion", "kind", "spec")}
    kept = {key: made["metadata"][key] for key in ("labels", "annotations")}
    copied["metadata"] = {"name": f"copy-{run.run_id[-8:]}", **kept}
    ask(lambda client: client.create(experiment.KIND, "default", copied))
    airflow_says("failed")
    operator._begin(run.context())
    operator.on_kill()
    assert names(standing()) == [copied["metadata"]["name"]]


def test_who_is_shut_down_while_the_best_is_read_leaves_it_to_the_next_try(
    kubeconfig, run, standing, tmp_path, airflow_says
):
    manifest = one_good_trial(tmp_path, "sleep 60", parallelTrialCount=1)
    operator = any_experiment(kubeconfig, manifest, execution_timeout=timedelta(seconds=6), on_timeout="use_best")
    asyncio.run(run.defer(operator).wait())
    airflow_says("running")
    operator._begin(run.context())
    operator.on_kill()
    assert len(standing()) == 1


async def _die(*_):
    raise Died


def _without_xcoms(context):
    def fail(*_):
        raise RuntimeError("Airflow's API does not take it")

    context["ti"].xcom_push = fail
    return context
