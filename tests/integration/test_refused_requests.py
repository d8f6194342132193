"""Requests that the API server refuses: repeated for a bounded time, or told with what has to be allowed."""

from __future__ import annotations

import time

import pytest

from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError, TrainingFailedError
from airflow_llmtune.resources import job
from tasks import any_train_job, fine_tune, mine, raw_train_job

pytestmark = pytest.mark.timeout(90)

ACCOUNT = "system:serviceaccount:airflow:worker"


@pytest.fixture(autouse=True)
def no_fault_is_left(plane):
    yield
    plane.faults.clear()


def denied(verb: str, resource: str, group: str) -> str:
    return (
        f'{resource} is forbidden: User "{ACCOUNT}" cannot {verb} resource "{resource}" in API group "{group}" '
        f'in the namespace "default"'
    )


PASSING = {
    "401": {"code": 401},
    "429": {"code": 429, "retry_after": 1},
    "500": {"code": 500},
    "502 of a proxy": {"code": 502},
    "503": {"code": 503},
    "504": {"code": 504},
    "no answer": {"refuse": True},
    "answer lost": {"cut_body_after": 10},
}


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_fails_in_passing_is_asked_again_and_makes_nothing_twice(plane, kubeconfig, run, ask, method, fault):
    operator = fine_tune(kubeconfig, api_retry_timeout=20.0, deferrable=False)
    before = plane.faults.injected
    plane.faults.add("/jobs", method=method, times=2, **fault)
    result = run.complete(operator)
    assert plane.faults.injected == before + 2
    found, _ = ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))
    assert [item["metadata"]["name"] for item in found] == [result["job"]]


@pytest.mark.parametrize("code", [401, 429, 503])
def test_it_is_asked_again_for_no_longer_than_its_author_allows(plane, kubeconfig, run, code):
    plane.faults.add("/jobs", code=code, times=10_000)
    begin = time.monotonic()
    with pytest.raises(KubernetesApiError, match=f"answered {code}"):
        run.complete(fine_tune(kubeconfig, api_retry_timeout=1.0))
    assert time.monotonic() - begin < 15


def test_a_right_that_the_worker_lacks_is_named_at_once(plane, kubeconfig, run):
    before = plane.faults.injected
    plane.faults.add("/jobs", method="POST", code=403, message=denied("create", "jobs", "batch"), times=99)
    with pytest.raises(PermissionDeniedError) as caught:
        run.complete(fine_tune(kubeconfig))
    assert plane.faults.injected == before + 1
    assert str(caught.value).startswith("The service account 'worker' of namespace 'airflow' may not create jobs.batch")
    assert '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}' in str(caught.value)


def test_a_right_that_the_triggerer_lacks_is_told_as_its_own(plane, kubeconfig, run):
    operator = fine_tune(kubeconfig)
    plane.faults.add("labelSelector=.*settled", code=403, message=denied("list", "jobs", "batch"), times=99)
    with pytest.raises(PermissionDeniedError, match=r"^Asked by the triggerer: The service account 'worker'"):
        run.complete(operator)


@pytest.mark.parametrize(
    ("path", "resource", "told"),
    [
        ("/pods\\?", "pods", "its pods could not be read: The service account 'worker' of namespace 'airflow' may not"),
        ("/events\\?", "events", "its events could not be read: The service account 'worker' of namespace 'airflow'"),
    ],
)
def test_a_right_to_read_the_reasons_does_not_hide_the_failure(plane, kubeconfig, run, path, resource, told):
    plane.faults.add(path, code=403, message=denied("list", resource, ""), times=99)
    with pytest.raises(TrainingFailedError, match="DeadlineExceeded") as caught:
        run.complete(any_train_job(kubeconfig, raw_train_job("sleep 60", activeDeadlineSeconds=1)))
    assert told in str(caught.value)
    assert f'resources: ["{resource}"], verbs: ["list"]' in str(caught.value)
