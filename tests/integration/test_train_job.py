"""TrainJobs over HTTPS against the control plane: any manifest, and the fine-tune of an LLM as one."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_llmtune.exceptions import (
    ExperimentFailedError,
    TrainingFailedError,
    WaitTimeoutError,
)
from airflow_llmtune.resources import experiment, pod, train_job
from airflow_llmtune.resources.meta import Outcome, ResourceKind
from airflow_llmtune.triggers.base import WAIT_TIMEOUT
from tasks import any_train_job, fine_tune, mine, raw_train_job, tune
from waiting import wait_for

RUNTIME = ResourceKind("trainer.kubeflow.org", "v1alpha1", "TrainingRuntime", "trainingruntimes", strict=True)
SECRET = ResourceKind("", "v1", "Secret", "secrets")
VOLUME = {"name": "initializer", "emptyDir": {}}
ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
ONCE = {"kind": "TrainingRuntime", "name": "torch-once"}
MANUAL = Path(__file__).parents[2] / "docs" / "how-to" / "run-on-a-cluster.md"


@pytest.fixture(scope="module")
def jobs():
    """Options for a fine-tune as TrainJob that a crash ends at once."""
    return {"job_kind": "TrainJob", "runtime_ref": ONCE}


@pytest.fixture(autouse=True)
def runtime(ask):
    """The cluster's own runtime repeats a crash for minutes; the one that the manual shows does not."""
    (text,) = re.findall(r"```yaml\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    manifest = yaml.safe_load(text)
    assert manifest["metadata"]["name"] == ONCE["name"]
    if ask(lambda client: client.find(RUNTIME, "default", ONCE["name"])) is None:
        ask(lambda client: client.create(RUNTIME, "default", manifest))


@pytest.fixture
def found(ask, run):
    """What a task has made, and not deleted yet."""

    def look() -> list[dict[str, Any]]:
        items, _ = ask(lambda client: client.list_all(train_job.KIND, "default", label_selector=mine(run)))
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    return look


@pytest.fixture
def pods(ask):
    def look(name: str) -> list[dict[str, Any]]:
        selector = train_job.pod_selector(name)
        return ask(lambda client: client.list_all(pod.KIND, "default", label_selector=selector))[0]

    return look


@pytest.mark.parametrize("deferrable", [True, False])
def test_any_train_job_runs(kubeconfig, run, found, deferrable):
    manifest = raw_train_job("test $PET_NNODES = 1")
    result = run.complete(any_train_job(kubeconfig, manifest, deferrable=deferrable))
    (made,) = found()
    assert run.deferrals == int(deferrable)
    assert result == {"job": made["metadata"]["name"], "namespace": "default", "metrics": {}, "artifact_uri": None}
    assert made["metadata"]["labels"]["team"] == "nlp"
    assert made["metadata"]["labels"]["dag_id"] == "dag"


def test_a_manifest_as_text_is_templated(kubeconfig, run, found):
    text = yaml.safe_dump(raw_train_job("exit 0")).replace("nlp", "{{ run_id }}")
    run.complete(any_train_job(kubeconfig, text))
    assert found()[0]["metadata"]["labels"]["team"] == run.run_id


def test_metrics_that_the_trainer_reported_to_the_trainer_api_are_the_result(kubeconfig, run, ask):
    operator = any_train_job(kubeconfig, raw_train_job("sleep 1"))
    name = run.defer(operator).name
    told = {"progressPercentage": 50, "metrics": [{"name": "eval_loss", "value": "1.25"}]}
    patch = {"status": {"trainerStatus": told}}
    ask(lambda client: client.patch(train_job.KIND, "default", f"{name}/status", patch))
    assert run.complete(operator)["metrics"] == {"eval_loss": 1.25}


def test_initializers_fetch_with_their_secret_before_the_trainer_starts(kubeconfig, run, ask, tmp_path):
    secret = {"metadata": {"name": "hub"}, "stringData": {"HF_TOKEN": "hub-token"}}
    if ask(lambda client: client.find(SECRET, "default", "hub")) is None:
        ask(lambda client: client.create(SECRET, "default", {"apiVersion": "v1", "kind": "Secret", **secret}))
    name = run.run_id.replace("_", "-")
    ask(lambda client: client.create(RUNTIME, "default", fetching_runtime(name, tmp_path)))
    asked = {
        step: {"storageUri": f"hf://org/{step}", "secretRef": {"name": "hub"}, "env": [{"name": "WHAT", "value": step}]}
        for step in ("dataset", "model")
    }
    manifest = raw_train_job(f"cat {tmp_path}/*.told > {tmp_path}/seen", initializer=asked)
    manifest["spec"]["runtimeRef"] = {"kind": "TrainingRuntime", "name": name}
    run.complete(any_train_job(kubeconfig, manifest))
    told = {f"{step} hf://org/{step} hub-token" for step in ("dataset", "model")}
    assert set((tmp_path / "seen").read_text().splitlines()) == told
    assert "hub-token" not in str(manifest)


def fetching_runtime(name: str, folder: Path) -> dict[str, Any]:
    """Make a runtime with both initializers, as Kubeflow's own for fine-tuning have them."""

    def step(job: str, ancestor: str, script: str, *after: str) -> dict[str, Any]:
        mount = {"name": "initializer", "mountPath": "/workspace"}
        container = {"name": job, "image": "busybox", "command": ["sh", "-c", script], "volumeMounts": [mount]}
        pod_spec = {"restartPolicy": "Never", "containers": [container], "volumes": [VOLUME]}
        template = {"metadata": {"labels": {ANCESTOR: ancestor}}, "spec": {"backoffLimit": 0}}
        template["spec"]["template"] = {"spec": pod_spec}
        waits = [{"name": other, "status": "Complete"} for other in after]
        return {"name": job, "template": template, **({"dependsOn": waits} if waits else {})}

    fetch = f'echo "$WHAT $STORAGE_URI $HF_TOKEN" > {folder}/$WHAT.told'
    steps = [step(f"{what}-initializer", f"{what}-initializer", fetch) for what in ("dataset", "model")]
    node = step("node", "trainer", "exit 1", *(one["name"] for one in steps))
    labels = {"trainer.kubeflow.org/framework": "torch"}
    spec = {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": [*steps, node]}}}
    return {
        "apiVersion": RUNTIME.api_version,
        "kind": RUNTIME.kind,
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "TrainJob"])
def test_a_fine_tune_has_the_same_result_as_any_kind_of_job(kubeconfig, run, kind):
    arguments = {"hyperparameters": {"learning_rate": 0.01}, "env": {"A": "1"}, "resources_per_node": {"cpu": "100m"}}
    result = run.complete(fine_tune(kubeconfig, job_options={"job_kind": kind}, **arguments))
    assert result.keys() == {"job", "namespace", "metrics", "artifact_uri", "manifest"}
    assert result["metrics"] == {"eval_loss": 2.0}
    assert result["artifact_uri"] == "/models/final"


def test_what_the_trainer_cannot_carry_reaches_the_pods_by_a_patch(kubeconfig, run, pods, jobs):
    node = {"name": "node", "env": [{"name": "B", "value": "2"}], "volumeMounts": [{"name": "s", "mountPath": "/s"}]}
    spec = {"nodeSelector": {"kubernetes.io/os": "linux"}, "volumes": [{"name": "s", "emptyDir": {}}]}
    template = {"metadata": {"labels": {"team": "nlp"}}, "spec": {**spec, "containers": [node]}}
    result = run.complete(fine_tune(kubeconfig, job_options={**jobs, "num_nodes": 2, "pod_template": template}))
    made = pods(result["job"])
    assert len(made) == 2
    for item in made:
        (container,) = item["spec"]["containers"]
        assert {"name": "B", "value": "2"} in container["env"]
        assert "/s" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert item["spec"]["nodeSelector"] == spec["nodeSelector"]
        assert item["metadata"]["labels"]["team"] == "nlp"
        assert item["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"


def test_a_crash_is_told_in_the_trainers_own_words(kubeconfig, run, jobs):
    with pytest.raises(TrainingFailedError) as caught:
        run.complete(fine_tune(kubeconfig, trainer_args={"crash": True}, job_options=jobs))
    message = str(caught.value)
    assert "failed: FailedJobs: " in message
    assert "container node ended with exit code 1" in message
    assert "the model lies nowhere" in message
    assert "Traceback: boom" in message


def test_a_crash_that_the_runtime_repeats_is_told_when_the_wait_ends(kubeconfig, run, found):
    operator = fine_tune(
        kubeconfig,
        trainer_args={"crash": True},
        job_options={"job_kind": "TrainJob"},
        timeout=timedelta(seconds=5),
    )
    with pytest.raises(AirflowFailException, match="the model lies nowhere"):
        run.complete(operator)
    assert found() == []


def test_the_reasons_of_another_job_of_that_name_are_not_told(kubeconfig, run, ask):
    operator = any_train_job(kubeconfig, raw_train_job("exit 3", runtimeRef=ONCE))
    job = run.defer(operator)
    assert asyncio.run(job.wait()).finished
    # What has ended meanwhile is told as that, not as overdue.
    for uid, error, told in (("another", WaitTimeoutError, False), (job.uid, TrainingFailedError, True)):
        with pytest.raises(error) as caught:
            operator.execute_complete(
                run.context(), Outcome("Failed", WAIT_TIMEOUT, "late").to_event(job.name, "default", uid)
            )
        assert ("exit code 3" in str(caught.value)) is told


def test_pods_that_cannot_be_made_are_told_by_the_events(kubeconfig, run):
    # Only the pods' own rules refuse such a number; the TrainJob waits with no condition until its deadline.
    resources = {"requests": {"cpu": "1e1.5"}}
    manifest = raw_train_job("exit 0", activeDeadlineSeconds=2)
    manifest["spec"]["trainer"]["resourcesPerNode"] = resources
    with pytest.raises(TrainingFailedError) as caught:
        run.complete(any_train_job(kubeconfig, manifest))
    assert "DeadlineExceeded" in str(caught.value)
    assert "event of TrainJob" in str(caught.value)
    assert "TrainJobResourcesCreationFailed" in str(caught.value)


def test_a_trial_whose_pods_went_with_its_deadline_tells_their_events(kubeconfig, run, jobs):
    node = {"name": "node", "volumeMounts": [{"name": "missing", "mountPath": "/s"}]}
    options = {**jobs, "active_deadline_seconds": 1, "pod_template": {"spec": {"containers": [node]}}}
    with pytest.raises(ExperimentFailedError, match=r"event of Pod .*volumeMount missing"):
        run.complete(tune(kubeconfig, max_trial_count=2, max_failed_trial_count=0, job_options=options))


def test_events_that_may_not_be_read_do_not_hide_the_failure(kubeconfig, run, plane):
    plane.faults.add("/events\\?", code=403, message="no rights", times=99)
    try:
        with pytest.raises(TrainingFailedError, match="DeadlineExceeded") as caught:
            run.complete(any_train_job(kubeconfig, raw_train_job("sleep 60", activeDeadlineSeconds=1)))
    finally:
        plane.faults.clear()
    assert "its events could not be read" in str(caught.value)
    assert "no rights" in str(caught.value)


def test_a_retry_adopts_the_job_of_a_worker_that_was_lost(kubeconfig, run, found, jobs):
    arguments = {"trainer_args": {"nap": 1}, "job_options": jobs}
    first = run.defer(fine_tune(kubeconfig, **arguments))
    result = run.complete(fine_tune(kubeconfig, **arguments))
    assert [item["metadata"]["name"] for item in found()] == [result["job"]] == [first.name]


def test_a_retry_after_a_failure_starts_another_job(kubeconfig, run, found, jobs):
    operator = fine_tune(kubeconfig, trainer_args={"crash": True}, job_options=jobs)
    for attempt in (1, 2):
        with pytest.raises(TrainingFailedError):
            run.complete(operator)
        assert len(found()) == attempt


def test_a_killed_task_leaves_neither_job_nor_pods(kubeconfig, run, found, pods, jobs, airflow_says):
    airflow_says("failed")
    operator = fine_tune(kubeconfig, trainer_args={"nap": 60}, job_options=jobs)
    with pytest.raises(TaskDeferred):
        operator.execute(run.new_try())
    (made,) = found()
    wait_for(lambda: pods(made["metadata"]["name"]))
    operator.on_kill()
    wait_for(lambda: not found() and not pods(made["metadata"]["name"]))


def test_a_deadline_ends_a_fine_tune(kubeconfig, run, jobs):
    options = {**jobs, "active_deadline_seconds": 1}
    with pytest.raises(TrainingFailedError, match="DeadlineExceeded"):
        run.complete(fine_tune(kubeconfig, trainer_args={"nap": 60}, job_options=options))


def test_a_runtime_that_does_not_exist_is_named(kubeconfig, run, found):
    with pytest.raises(AirflowFailException, match=r'TrainingRuntime.* "none" not found'):
        run.complete(any_train_job(kubeconfig, raw_train_job("exit 0", runtime="none")))
    assert found() == []


@pytest.mark.parametrize(("version", "field"), [("2.0", "podSpecOverrides"), ("2.1", "podTemplateOverrides")])
def test_a_patch_for_another_version_is_refused_and_not_dropped(kubeconfig, run, found, version, field):
    options = {"job_kind": "TrainJob", "kubeflow_trainer_version": version, "service_account_name": "default"}
    with pytest.raises(AirflowFailException, match=f'unknown field "spec.{field}"'):
        run.complete(fine_tune(kubeconfig, job_options=options))
    assert found() == []


@pytest.mark.parametrize(("version", "field"), [("2.0", "podSpecOverrides"), ("2.1", "podTemplateOverrides")])
def test_a_trial_for_another_version_is_refused_before_katib_lets_parts_of_it_drop(
    kubeconfig, run, ask, version, field
):
    options = {"job_kind": "TrainJob", "kubeflow_trainer_version": version, "service_account_name": "default"}
    with pytest.raises(AirflowFailException, match=f'unknown field "spec.{field}"'):
        run.complete(tune(kubeconfig, job_options=options))
    assert ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))[0] == []


def test_a_tuning_that_may_not_create_train_jobs_leaves_them_to_katib(kubeconfig, run, plane, jobs):
    denied = 'trainjobs.trainer.kubeflow.org is forbidden: User "a" cannot create resource "trainjobs"'
    plane.faults.add("/trainjobs\\?.*dryRun", code=403, message=denied, times=1)
    assert run.complete(tune(kubeconfig, max_trial_count=2, job_options=jobs))["counts"]["succeeded"] == 2


def test_mistakes_in_a_manifest_are_one_error_before_anything_is_created(kubeconfig, run, found):
    manifest = raw_train_job("exit 0", managedBy="me", runtimePatches=[{"manager": "me"}])
    manifest["spec"]["trainer"] |= {"numNodes": 0, "env": [{"name": "PET_NNODES", "value": "2"}]}
    with pytest.raises(AirflowFailException, match="has 4 mistakes"):
        run.complete(any_train_job(kubeconfig, manifest))
    assert found() == []


def test_trials_may_be_train_jobs(kubeconfig, run, jobs):
    result = run.complete(tune(kubeconfig, max_trial_count=2, output_uri="/models/out", job_options=jobs))
    assert result["counts"]["succeeded"] == 2
    assert result["artifact_uri"] == f"/models/out/{result['experiment']}/{result['trial']}"


def test_a_crashing_train_job_fails_its_trial_with_the_trainers_own_words(kubeconfig, run, jobs):
    with pytest.raises(ExperimentFailedError, match="the model lies nowhere"):
        run.complete(tune(kubeconfig, trainer_args={"crash": True}, job_options=jobs))
