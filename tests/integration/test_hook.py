"""How the hook finds the API server, and how it tells what went wrong there."""

from __future__ import annotations

import json
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.kubeflow import KubeflowHook
from airflow_llmtune.hooks.ownership import ATTEMPTS, delete_owned
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import IDENTITY_LABEL, OWNER_ANNOTATION


def suspended_job(name: str, identity: str = "me") -> dict:
    container = {"name": "main", "image": "busybox", "command": ["true"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    metadata = {"name": name, "labels": {IDENTITY_LABEL: identity}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": True, "template": template},
    }


async def _reaches(hook: KubeflowHook) -> bool:
    async with hook.connect() as client:
        _, version = await client.list_all(job.KIND, "default")
    return bool(version)


def _connection(**extra: object) -> str:
    return json.dumps({"conn_type": "kubernetes", "extra": extra})


@pytest.mark.parametrize("form", ["path", "dict", "text"])
async def test_the_connection_may_hold_a_path_or_a_whole_kubeconfig(kubeconfig, monkeypatch, form):
    text = Path(kubeconfig).read_text()
    extra = {
        "path": {"kube_config_path": kubeconfig},
        "dict": {"kube_config": yaml.safe_load(text)},
        "text": {"kube_config": text},
    }[form]
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", _connection(namespace="tuning", **extra))
    hook = KubeflowHook()
    assert await _reaches(hook)
    assert await hook.default_namespace() == "tuning"


async def test_config_file_goes_before_the_connection(kubeconfig, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", _connection(kube_config_path="/no/such/file"))
    assert await _reaches(KubeflowHook(config_file=kubeconfig))


async def test_an_empty_form_field_counts_as_not_set(kubeconfig, monkeypatch):
    extra = {"kube_config_path": kubeconfig, "kube_config": "", "namespace": "", "in_cluster": False}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", _connection(**extra))
    hook = KubeflowHook()
    assert await _reaches(hook)
    assert await hook.default_namespace() == "default"


async def test_a_wrong_token_is_told_with_the_servers_words(kubeconfig, tmp_path):
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"][0]["user"]["token"] = "stolen"
    spoilt = tmp_path / "spoilt.yaml"
    spoilt.write_text(yaml.safe_dump(config))
    with pytest.raises(KubernetesApiError) as caught:
        await _reaches(KubeflowHook(None, config_file=str(spoilt), api_retry_timeout=0.2))
    assert caught.value.code == 401
    assert "stolen" not in str(caught.value)


async def test_delete_with_another_uid_deletes_nothing(kubeconfig):
    name = f"job-{uuid.uuid4().hex[:8]}"
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        await client.create(job.KIND, "default", suspended_job(name))
        assert await client.delete(job.KIND, "default", name, uid=str(uuid.uuid4())) is False
        assert await client.find(job.KIND, "default", name) is not None


async def test_what_is_deleted_is_what_its_owner_was_seen_to_own(kubeconfig):
    ours = {OWNER_ANNOTATION: "us"}
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        made = await client.create(job.KIND, "default", suspended_job(f"job-{uuid.uuid4().hex[:8]}"))
        seen = await _annotate(client, made, ours)
        # It changes in between, as a status does all the time; then somebody adopts it.
        await _annotate(client, made, {"another": "thing"})
        assert await delete_owned(client, job.KIND, seen, "them") is False
        await _annotate(client, made, {OWNER_ANNOTATION: "them"})
        assert await delete_owned(client, job.KIND, seen, "us") is False
        await _annotate(client, made, ours)
        assert await delete_owned(client, job.KIND, seen, "us") is True
        assert await delete_owned(client, job.KIND, seen, "us") is False


async def test_what_changes_all_the_time_is_told_at_last(kubeconfig, plane):
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        made = await client.create(job.KIND, "default", suspended_job(f"job-{uuid.uuid4().hex[:8]}"))
        plane.faults.add(made["metadata"]["name"], method="DELETE", code=409, times=ATTEMPTS)
        with pytest.raises(KubernetesApiError, match="changes too fast"):
            await delete_owned(client, job.KIND, made, None)
        assert await client.find(job.KIND, "default", made["metadata"]["name"]) is not None


async def _annotate(client, obj, annotations):
    return await client.patch(job.KIND, "default", obj["metadata"]["name"], {"metadata": {"annotations": annotations}})


async def test_all_pages_of_a_list_are_read(kubeconfig, monkeypatch):
    monkeypatch.setattr("airflow_llmtune.hooks.client.FIRST_PAGE", 2)
    monkeypatch.setattr("airflow_llmtune.hooks.client.PAGE_BYTES", 1)  # and one on each other page
    label = uuid.uuid4().hex[:8]
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        for number in range(5):
            await client.create(job.KIND, "default", suspended_job(f"page-{label}-{number}", label))
        found, _ = await client.list_all(job.KIND, "default", label_selector=f"{IDENTITY_LABEL}={label}")
    assert len(found) == 5


class Misbehaving(BaseHTTPRequestHandler):
    """Answers each path in its own wrong way."""

    def do_GET(self) -> None:
        code, length, body = {
            "gateway": (502, None, b"<html>Bad gateway</html>"),
            "html": (200, None, b"<html>Please log in</html>"),
            "cut": (200, 500, b'{"items": ['),
            "garbage": (200, None, b'{"items": ['),
        }[self.server.fault]
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def misbehaving(tmp_path):
    """A server that misbehaves, and the kubeconfig that leads to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    thread = Thread(target=server.serve_forever)
    thread.start()
    path = tmp_path / "misbehaving.yaml"
    path.write_text(json.dumps(_kubeconfig(f"http://127.0.0.1:{server.server_port}", {})))
    yield server, str(path)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("gateway", "502.*Bad gateway"),
        ("html", "cannot be reached"),
        ("cut", "cannot be reached"),
        ("garbage", "cannot be reached"),
    ],
)
async def test_an_answer_that_is_none_is_one_kind_of_error(misbehaving, fault, told):
    server, path = misbehaving
    server.fault = fault
    with pytest.raises(KubernetesApiError, match=told):
        await _reaches(KubeflowHook(None, config_file=path, api_retry_timeout=0.2))


async def test_a_token_of_an_exec_plugin_is_renewed_when_it_has_expired(kubeconfig, tmp_path):
    config = yaml.safe_load(Path(kubeconfig).read_text())
    token = config["users"][0]["user"].pop("token")
    credential = {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential"}
    for name, value in (("first", "expired"), ("then", token)):
        (tmp_path / name).write_text(json.dumps({**credential, "status": {"token": value}}))
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\ncd {tmp_path}\nif mkdir used 2>/dev/null; then cat first; else cat then; fi\n")
    plugin.chmod(0o700)
    config["users"][0]["user"]["exec"] = {"apiVersion": credential["apiVersion"], "command": str(plugin), "args": []}
    path = tmp_path / "exec.yaml"
    path.write_text(yaml.safe_dump(config))
    assert await _reaches(KubeflowHook(None, config_file=str(path), api_retry_timeout=10))


@pytest.mark.parametrize("text", ["just text", "a: [", "users: [{token: s3cret}", "{}"])
async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(KubernetesApiError, match=r"broken\.yaml") as caught:
        await _reaches(KubeflowHook(None, config_file=str(path), api_retry_timeout=60))
    assert "s3cret" not in str(caught.value)
    assert not caught.value.transient


async def test_a_connection_that_does_not_exist_is_named():
    with pytest.raises(KubernetesApiError, match="no_such_connection"):
        await _reaches(KubeflowHook("no_such_connection", api_retry_timeout=60))


async def test_in_cluster_goes_before_the_connection(monkeypatch, kubeconfig):
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", _connection(kube_config_path=kubeconfig))
    with pytest.raises(KubernetesApiError, match=r"Service host/port is not set"):
        await _reaches(KubeflowHook(in_cluster=True, api_retry_timeout=0.2))


def _kubeconfig(server: str, user: dict) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    }
