"""What the API server's refusal becomes: the right that is missing, or its own words."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError
from airflow_llmtune.hooks.answer import status_error

LIST_JOBS = (
    'jobs.batch is forbidden: User "system:serviceaccount:airflow:triggerer" cannot list resource "jobs" in API group '
    '"batch" in the namespace "tuning"'
)


def refused(message: str, **status: Any) -> KubernetesApiError:
    return status_error({"code": 403, "reason": "Forbidden", "message": message} | status, "https://cluster")


def test_a_missing_right_names_who_lacks_what_and_the_rule_to_add():
    error = refused(LIST_JOBS)
    assert isinstance(error, PermissionDeniedError)
    assert str(error) == (
        "The service account 'triggerer' of namespace 'airflow' may not list jobs.batch in namespace 'tuning'. "
        "Fix: add to a Role of namespace 'tuning' that is bound to it the rule "
        '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"]}. '
        f"The API server at https://cluster answered 403 Forbidden: {LIST_JOBS}"
    )
    assert (error.code, error.reason, error.transient) == (403, "Forbidden", False)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            'User "jane@x.org" cannot get resource "pods/log" in API group "" in the namespace "ml": no opinion.',
            "The user 'jane@x.org' may not get pods/log in namespace 'ml'. Fix: add to a Role of namespace 'ml'",
        ),
        (
            'User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope',
            "The user 'system:anonymous' may not list nodes. Fix: add to a ClusterRole that is bound to it",
        ),
        (
            'User "me" cannot watch resource "jobs"',
            "The user 'me' may not watch jobs in that namespace. Fix: add to a Role of that namespace",
        ),
    ],
)
def test_each_form_of_the_refusal_is_read(message: str, told: str):
    assert str(refused(message)).startswith(told)


@pytest.mark.parametrize(
    "message",
    [
        'pods "a" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 8, limited: 8',
        'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: no',
        "unable to create new content in namespace ml because it is being terminated",
    ],
)
def test_another_refusal_with_that_code_is_no_matter_of_rights(message: str):
    assert not isinstance(refused(message), PermissionDeniedError)


def test_the_same_words_with_another_code_are_no_refusal():
    assert not isinstance(refused(LIST_JOBS, code=500), PermissionDeniedError)
