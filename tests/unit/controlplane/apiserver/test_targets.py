"""Paths and queries."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, EXPERIMENT, JOB, NAMESPACE, POD
from airflow_llmtune.controlplane.apiserver.targets import Target, delete_options, flag, integer, parse_target
from airflow_llmtune.controlplane.store import Store

KINDS = KindCatalog(Store())


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target(POD)),
        ("api/v1/namespaces/n/pods/", Target(POD, "n")),
        ("/api/v1/namespaces/n/pods/p", Target(POD, "n", "p")),
        ("/api/v1/namespaces/n/pods/p/log", Target(POD, "n", "p", "log")),
        ("/api/v1/namespaces", Target(NAMESPACE)),
        ("/api/v1/namespaces/n", Target(NAMESPACE, None, "n")),
        ("/api/v1/namespaces/n/status", Target(NAMESPACE, None, "n", "status")),
        ("/apis/kubeflow.org/v1beta1/experiments", Target(EXPERIMENT)),
        ("/apis/kubeflow.org/v1beta1/namespaces/n/experiments/e/status", Target(EXPERIMENT, "n", "e", "status")),
        ("/apis/batch/v1/namespaces/namespaces/jobs", Target(JOB, "namespaces")),
    ],
)
def test_paths_of_resources(path: str, target: Target) -> None:
    assert parse_target(path, KINDS) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/api",
        "/apis/batch/v1",
        "/api/v2/pods",
        "/apis/kubeflow.org/v1/experiments",
        "/api/v1/pods/p",
        "/api/v1/namespaces/n/pods/p/exec",
        "/api/v1/namespaces/n/pods/p/log/more",
        "/api/v1/namespaces/n/secrets/s/status",
        "/api/v1/namespaces/n/namespaces/m",
    ],
)
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_target(path, KINDS)
    assert raised.value.code == 404


def test_flags_and_numbers() -> None:
    assert flag({"watch": "true"}, "watch")
    assert flag({"watch": "1"}, "watch")
    assert not flag({"watch": "false"}, "watch")
    assert not flag({}, "watch")
    assert integer({"limit": "5"}, "limit") == 5
    assert integer({"limit": "-5"}, "limit") == -5
    assert integer({"limit": ""}, "limit") is None


@pytest.mark.parametrize("text", ["five", "1_0", " 1", "\u0661", "9223372036854775808", "9" * 5000])
def test_what_is_no_64_bit_integer_is_a_bad_request(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        integer({"limit": text}, "limit")
    assert raised.value.code == 400


@pytest.mark.parametrize(
    ("kind", "query", "body", "expected"),
    [
        (CONFIG_MAP, {}, {}, ("Background", True)),
        (JOB, {}, {}, ("Orphan", True)),
        (JOB, {}, {"propagationPolicy": "Background"}, ("Background", False)),
        (JOB, {"propagationPolicy": "Foreground"}, {}, ("Foreground", False)),
        (POD, {}, {"orphanDependents": True}, ("Orphan", False)),
        (JOB, {"orphanDependents": "false"}, {}, ("Background", False)),
    ],
)
def test_how_a_deletion_propagates(kind: Any, query: dict, body: dict, expected: tuple[str, bool]) -> None:
    options = delete_options(kind, query, [], body)
    assert (options.propagation, options.is_default) == expected


def test_the_other_options_of_a_delete_come_from_body_or_query() -> None:
    body = {"preconditions": {"uid": "u", "resourceVersion": "7"}, "gracePeriodSeconds": 3, "dryRun": ["All"]}
    options = delete_options(POD, {}, [], body)
    assert (options.uid, options.resource_version, options.grace_period_seconds, options.dry_run) == ("u", "7", 3, True)
    assert delete_options(POD, {"gracePeriodSeconds": "0"}, ["All"], {}).grace_period_seconds == 0


@pytest.mark.parametrize(
    "body",
    [
        {"propagationPolicy": "Sideways"},
        {"preconditions": 3},
        {"dryRun": ["Some"]},
        {"propagationPolicy": ["Background"]},
    ],
)
def test_bad_options_of_a_delete_are_refused(body: dict) -> None:
    with pytest.raises(ApiError) as raised:
        delete_options(POD, {}, [], body)
    assert raised.value.code == 400
