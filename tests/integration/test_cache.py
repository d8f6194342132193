"""All pods of a task write to one cache; a volume that is made for it is the object's own, and goes with it."""

from __future__ import annotations

from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError
from airflow_llmtune.operators import companions
from airflow_llmtune.operators.trainer import EvaluateLLMOperator
from airflow_llmtune.resources import experiment, job
from airflow_llmtune.resources.companion import VOLUME_CLAIM
from tasks import fine_tune, make_claim, mine, tune
from trainer_image import names_of
from waiting import wait_for

JSON = dict[str, Any]
VOLUME = {"size": "1Gi", "storage_class_name": "shared"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def plane(trainer_image: Path, state: Path) -> Any:
    with ControlPlane(images=names_of(trainer_image), state_dir=state) as plane:
        yield plane


def evaluate(kubeconfig: str, **changes: Any) -> EvaluateLLMOperator:
    settings = {"model": "/models/tiny", "dataset": "/data", "kubernetes_conn_id": None, "config_file": kubeconfig}
    return EvaluateLLMOperator(task_id="evaluate", **settings, **changes)


OPERATORS = pytest.mark.parametrize(("operator", "pods"), [(tune, 3), (fine_tune, 1), (evaluate, 1)])


def users(folder: Path) -> int:
    """Return how many pods have written to a cache."""
    return len(set((folder / "used").read_text().split()))


def find_claim(ask: Any, owner: str) -> Any:
    return ask(lambda client: client.find(VOLUME_CLAIM, "default", f"{owner}-cache"))


# --- where it is --------------------------------------------------------------------------------------------


@OPERATORS
def test_pods_share_a_folder_of_their_node(kubeconfig, run, tmp_path, operator, pods):
    folder = tmp_path / "not" / "there"
    run.complete(operator(kubeconfig, cache=f"node://{folder}"))
    assert users(folder) == pods


@OPERATORS
def test_pods_share_a_claim_that_is_there_and_it_stays(kubeconfig, run, ask, state, operator, pods):
    name = f"shared-{operator.__name__.replace('_', '-')}"
    make_claim(ask, name)
    folder = state / "volumes" / "default" / name / "llm"
    folder.mkdir(parents=True)
    cache = {"uri": f"pvc://{name}/llm", "max_size": "1Gi"}
    run.complete(operator(kubeconfig, cache=cache, on_finish_action="delete"))
    assert users(folder) == pods
    assert ask(lambda client: client.find(VOLUME_CLAIM, "default", name)) is not None


@pytest.mark.parametrize("job_kind", ["Job", "PyTorchJob", "TrainJob"])
@pytest.mark.parametrize(("operator", "pods"), [(tune, 3), (fine_tune, 1)])
def test_pods_share_a_new_volume(kubeconfig, run, ask, state, operator, pods, job_kind):
    result = run.complete(operator(kubeconfig, cache=VOLUME, job_options={"job_kind": job_kind}))
    name = result.get("experiment") or result["job"]
    assert users(state / "volumes" / "default" / f"{name}-cache") == pods
    claim = find_claim(ask, name)
    assert claim["spec"]["storageClassName"] == "shared"
    assert claim["metadata"]["labels"].items() >= {"dag_id": "dag", "task_id": "task"}.items()


# --- whose it is --------------------------------------------------------------------------------------------


def test_the_volume_is_the_experiments_and_goes_with_it(kubeconfig, run, ask, state):
    name = run.complete(tune(kubeconfig, cache=VOLUME))["experiment"]
    owner = ask(lambda client: client.get(experiment.KIND, "default", name))
    (reference,) = find_claim(ask, name)["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("Experiment", owner["metadata"]["uid"])
    ask(lambda client: client.delete(experiment.KIND, "default", name))
    wait_for(lambda: find_claim(ask, name) is None)
    wait_for(lambda: not (state / "volumes" / "default" / f"{name}-cache").exists())


def test_a_task_that_deletes_what_has_finished_leaves_no_volume(kubeconfig, run, ask):
    name = run.complete(fine_tune(kubeconfig, cache=VOLUME, on_finish_action="delete"))["job"]
    wait_for(lambda: find_claim(ask, name) is None)


def test_a_retry_adopts_the_volume_with_the_object(kubeconfig, run, ask):
    settings = {"trainer_args": {"nap": 2}, "cache": VOLUME}
    name = run.defer(fine_tune(kubeconfig, **settings)).name
    made = find_claim(ask, name)
    assert run.complete(fine_tune(kubeconfig, **settings))["job"] == name
    assert find_claim(ask, name)["metadata"]["uid"] == made["metadata"]["uid"]


def test_an_object_that_is_adopted_as_it_is_keeps_its_volume(kubeconfig, run, ask):
    settings = {"trainer_args": {"nap": 2}, "on_stale": "adopt"}
    name = run.defer(fine_tune(kubeconfig, cache=VOLUME, **settings)).name
    made = find_claim(ask, name)
    result = run.complete(fine_tune(kubeconfig, cache={"size": "9Gi", "storage_class_name": "other"}, **settings))
    assert result["job"] == name
    assert find_claim(ask, name)["spec"] == made["spec"]


@pytest.mark.parametrize("now", [None, {**VOLUME, "size": "2Gi"}])
def test_another_cache_is_another_attempt(kubeconfig, run, ask, now):
    first = run.defer(fine_tune(kubeconfig, trainer_args={"nap": 60}, cache=VOLUME)).name
    second = run.defer(fine_tune(kubeconfig, trainer_args={"nap": 60}, cache=now)).name
    assert second != first
    wait_for(lambda: find_claim(ask, first) is None)
    assert (find_claim(ask, second) is None) == (now is None)
    ask(lambda client: client.delete(job.KIND, "default", second))


def test_a_worker_that_died_before_the_volume_is_followed_by_one_that_makes_it(plane, kubeconfig, run, ask):
    plane.faults.add(r"/persistentvolumeclaims$", method="POST", code=422, message="the worker died here")
    with pytest.raises(KubernetesApiError, match="the worker died here"):
        run.defer(fine_tune(kubeconfig, cache=VOLUME))
    (made,) = jobs_of(ask, run)
    assert find_claim(ask, made["metadata"]["name"]) is None
    # A task that has its arguments changed since makes it all the same: the object says what it needs.
    assert run.complete(fine_tune(kubeconfig, on_stale="adopt"))["job"] == made["metadata"]["name"]


def test_a_result_that_is_read_once_more_makes_no_volume(kubeconfig, run, ask):
    trigger = run.defer(fine_tune(kubeconfig, cache=VOLUME))
    wait_for(lambda: job.read_outcome(jobs_of(ask, run)[0]).finished)
    ask(lambda client: client.delete(VOLUME_CLAIM, "default", f"{trigger.name}-cache"))
    assert run.complete(fine_tune(kubeconfig, cache=VOLUME))["job"] == trigger.name
    assert find_claim(ask, trigger.name) is None


def jobs_of(ask: Any, run: Any) -> list[JSON]:
    found: list[JSON] = ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))[0]
    return found


# --- what stands in the way -----------------------------------------------------------------------------------


def test_a_volume_that_may_not_be_made_is_told_before_anything_is_created(plane, kubeconfig, run, ask):
    message = (
        'persistentvolumeclaims is forbidden: User "system:serviceaccount:airflow:worker" cannot create resource '
        '"persistentvolumeclaims" in API group "" in the namespace "default"'
    )
    plane.faults.add(r"/persistentvolumeclaims\?dryRun=All", method="POST", code=403, message=message)
    with pytest.raises(PermissionDeniedError, match="'worker' of namespace 'airflow' may not create persistentvolume"):
        run.complete(fine_tune(kubeconfig, cache=VOLUME))
    assert jobs_of(ask, run) == []


def earlier_claim(kubeconfig: str, run: Any, ask: Any) -> str:
    """Leave a volume as of an object of the same name that is gone, and whose pods still run."""
    name: str = run.complete(fine_tune(kubeconfig)).get("job")
    ask(lambda client: client.delete(job.KIND, "default", name))
    wait_for(lambda: jobs_of(ask, run) == [])
    make_claim(ask, f"{name}-cache")
    run.clear()
    return name


def test_a_volume_of_an_earlier_object_is_waited_out(kubeconfig, run, ask, monkeypatch):
    name = earlier_claim(kubeconfig, run, ask)
    before = find_claim(ask, name)
    monkeypatch.setattr(companions, "PAUSE", 0.05)
    delete = Timer(0.5, ask, [lambda client: client.delete(VOLUME_CLAIM, "default", f"{name}-cache")])
    delete.start()
    result = run.complete(fine_tune(kubeconfig, cache=VOLUME))
    delete.join()
    assert result["job"] == name
    assert find_claim(ask, name)["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_volume_that_stays_anothers_is_told(kubeconfig, run, ask, monkeypatch):
    name = earlier_claim(kubeconfig, run, ask)
    monkeypatch.setattr(companions, "CLAIM_SECONDS", 0.1)
    monkeypatch.setattr(companions, "PAUSE", 0.02)
    with pytest.raises(
        KubernetesApiError, match=f"PersistentVolumeClaim {name}-cache in namespace default is there and"
    ):
        run.complete(fine_tune(kubeconfig, cache=VOLUME))
    assert jobs_of(ask, run) == []


def test_a_volume_of_one_node_for_several_pods_is_warned_of(kubeconfig, run, capfd):
    run.complete(tune(kubeconfig, cache={"size": "1Gi", "access_modes": ["ReadWriteOnce"]}))
    assert "Cache: up to 2 pods share a ReadWriteOnce volume" in capfd.readouterr().out


def test_a_volume_of_one_pod_for_several_is_a_mistake(kubeconfig, run):
    cache = {"size": "1Gi", "access_modes": ["ReadWriteOncePod"]}
    with pytest.raises(AirflowFailException, match=r"`cache.access_modes`.* is for one pod at a time, and up to 2 run"):
        run.complete(tune(kubeconfig, cache=cache))
    run.complete(tune(kubeconfig, cache=cache, parallel_trial_count=1))
