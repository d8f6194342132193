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
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import IDENTITY_LABEL


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


async def test_create_or_adopt_takes_our_own_object(kubeconfig):
    name = f"job-{uuid.uuid4().hex[:8]}"
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        first, created = await client.create_or_adopt(job.KIND, "default", suspended_job(name))
        second, created_again = await client.create_or_adopt(job.KIND, "default", suspended_job(name))
    assert (created, created_again) == (True, False)
    assert first["metadata"]["uid"] == second["metadata"]["uid"]


async def test_a_create_whose_answer_was_lost_is_adopted_on_the_repeat(kubeconfig, plane):
    name = f"job-{uuid.uuid4().hex[:8]}"
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        await client.create(job.KIND, "default", suspended_job(name))
        plane.faults.add("/jobs", method="POST", code=503)
        _, created = await client.create_or_adopt(job.KIND, "default", suspended_job(name))
    assert created is False


async def test_delete_with_another_uid_deletes_nothing(kubeconfig):
    name = f"job-{uuid.uuid4().hex[:8]}"
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        await client.create(job.KIND, "default", suspended_job(name))
        assert await client.delete(job.KIND, "default", name, uid=str(uuid.uuid4())) is False
        assert await client.find(job.KIND, "default", name) is not None


async def test_all_pages_of_a_list_are_read(kubeconfig, monkeypatch):
    monkeypatch.setattr("airflow_llmtune.hooks.kubeflow.PAGE_SIZE", 2)
    label = uuid.uuid4().hex[:8]
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        for number in range(5):
            await client.create(job.KIND, "default", suspended_job(f"page-{label}-{number}", label))
        found, _ = await client.list_all(job.KIND, "default", label_selector=f"{IDENTITY_LABEL}={label}")
    assert len(found) == 5


class Proxy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html>Bad gateway</html>"
        self.send_response(502)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


async def test_an_answer_that_is_no_json_is_told_as_it_is(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [cluster],
        "contexts": [context],
    }
    path = tmp_path / "kubeconfig.yaml"
    path.write_text(json.dumps({**config, "users": [{"name": "u", "user": {}}]}))
    try:
        with pytest.raises(KubernetesApiError, match=r"502.*Bad gateway"):
            await _reaches(KubeflowHook(None, config_file=str(path), api_retry_timeout=0.2))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
