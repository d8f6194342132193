"""What a pod sees in place of the host's files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.environment import Lookup
from airflow_llmtune.controlplane.kubelet.host_names import HostNames
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.pod_view import PodView, hosts_text, mounts_account
from airflow_llmtune.controlplane.kubelet.runtime import private_view
from nodes import node_kubelet, running
from objects import Object

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture
def can_isolate(tmp_path: Path) -> bool:
    """Not on macOS, nor where the machine forbids mount namespaces: pods then see the host's files."""
    folder = tmp_path / "trial"
    folder.mkdir()
    return private_view.is_possible(folder)


async def test_a_pod_finds_its_account_where_clients_look_and_the_host_stays_as_it_is(
    registry: Registry, tmp_path: Path, can_isolate: bool
) -> None:
    before = sorted(Path("/run").iterdir())
    async with running(registry, node_kubelet(registry, tmp_path, authority=b" and a certificate")) as node:
        script = f"cat {ACCOUNT}/namespace {ACCOUNT}/ca.crt; for f in /run/*; do echo; echo $f; done; echo $$$$"
        node.create(script, container={"terminationMessagePolicy": "FallbackToLogsOnError"})
        await node.end()
        lines = (await node.log()).split()
    assert sorted(Path("/run").iterdir()) == before
    assert not os.path.ismount("/etc/hosts")
    if can_isolate:
        assert lines[:4] == ["default", "and", "a", "certificate"]
        assert {str(path) for path in before} <= set(lines)


async def test_names_of_services_lead_to_loopback_also_those_that_come_later(
    registry: Registry, tmp_path: Path, can_isolate: bool
) -> None:
    def service(name: str) -> None:
        registry.create(SERVICE, {"metadata": {"name": name}, "spec": {"clusterIP": "None"}}, "default")

    service("early")
    hosts = {"katib-db-manager.kubeflow": "127.1.2.3"}
    async with running(registry, node_kubelet(registry, tmp_path, hosts=hosts)) as node:
        node.create(
            "until grep late /etc/hosts; do sleep 0.02; done; cat /etc/hosts; echo $DB", container=reaching_db()
        )
        await node.running()
        if not can_isolate:
            return
        service("late")
        await node.end()
        log = await node.log()
    assert "127.0.0.1\tearly.default.svc\n" in log
    assert "127.0.0.1\tlate\n" in log
    assert "127.1.2.3\tkatib-db-manager.kubeflow\n" in log
    assert log.endswith("127.1.2.3:6789\n")


def test_the_name_of_a_suggestions_service_leads_to_what_answers_for_it(registry: Registry) -> None:
    owner = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Suggestion", "name": "exp", "uid": "u", "controller": True}
    for name, owners in (("exp-random", [owner]), ("other", [])):
        registry.create(SERVICE, {"metadata": {"name": name, "ownerReferences": owners}, "spec": {}}, "default")
    found = HostNames(registry, {}, "127.1.2.3").of("default")
    assert (found["exp-random.default"], found["other.default"]) == ("127.1.2.3", "127.0.0.1")


async def test_pods_below_one_service_find_each_other_by_name(
    registry: Registry, tmp_path: Path, can_isolate: bool
) -> None:
    async with running(registry, node_kubelet(registry, tmp_path)) as node:
        script = "until grep -w job-1.job.default.svc /etc/hosts; do sleep 0.02; done; cat /etc/hosts"
        node.create(script, hostname="job-0", subdomain="job")
        await node.running()
        node.create("sleep 60", name="sibling", hostname="job-1", subdomain="job")
        node.create("sleep 60", name="unnamed", subdomain="job")
        if not can_isolate:
            return
        await node.end()
        log = await node.log()
    assert {"127.0.0.1\tjob-0.job", "127.0.0.1\tjob-1.job"} <= set(log.splitlines())


def reaching_db() -> Object:
    return {"env": [{"name": "DB", "value": "katib-db-manager.kubeflow:6789"}]}


def view(tmp_path: Path, lookup: Lookup, **spec: Any) -> tuple[PodFolder, PodView]:
    folder = PodFolder(tmp_path, "0123456789abcdef")
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    return folder, PodView(pod, folder, b"", lookup)


def test_the_token_is_for_the_owner_only_and_stays_the_same(tmp_path: Path) -> None:
    folder, made = view(tmp_path, lambda kind, name: None)
    assert [target for _, target in made.binds({})] == ["/etc/hosts", ACCOUNT]
    token = folder.path / "serviceaccount" / "token"
    first = token.read_text()
    assert len(first) > 30
    assert (stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(token.parent.stat().st_mode)) == (0o600, 0o700)
    made.binds({})
    assert token.read_text() == first


@pytest.mark.parametrize(
    ("spec", "account", "mounts"),
    [
        ({}, None, True),
        ({}, {}, True),
        ({}, {"automountServiceAccountToken": False}, False),
        ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}, True),
        ({"automountServiceAccountToken": False}, None, False),
    ],
)
def test_pod_and_service_account_say_whether_there_is_a_token(
    spec: Object, account: Object | None, mounts: bool
) -> None:
    assert mounts_account(spec, lambda kind, name: account) is mounts


def test_the_lines_of_the_host_stay() -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]},
    }
    assert hosts_text("127.0.0.1 localhost\n\n::1 localhost", pod, {"z": "127.0.0.2"}).splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "127.0.0.1\tp",
        "10.0.0.1\ta b",
        "127.0.0.2\tz",
    ]
