"""Access, discovery and single objects over HTTPS."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml

from objects import CONFIG_MAPS, EXPERIMENTS, experiment_manifest

Served = Any  # the fixture's type lives in conftest, which cannot be imported


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "test-token"}])
def test_without_the_token_nothing_but_health_is_told(served: Served, header: dict[str, str]) -> None:
    with httpx.Client(base_url=served.url, verify=served.tls, headers=header) as anonymous:
        answer = anonymous.get(EXPERIMENTS)
        assert answer.status_code == 401
        assert answer.json() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Unauthorized",
            "reason": "Unauthorized",
            "code": 401,
        }
        assert anonymous.get("/healthz").text == "ok"
        assert anonymous.get("/readyz").text == "ok"


def test_the_certificate_is_good_for_localhost_too(served: Served) -> None:
    url = served.url.replace("127.0.0.1", "localhost")
    assert httpx.get(f"{url}/livez", verify=served.tls).text == "ok"


@pytest.mark.parametrize("path", ["/api", "/api/", "/apis", "/apis/batch", "/apis/batch/", "/version"])
def test_discovery_answers_with_and_without_a_slash(served: Served, path: str) -> None:
    assert served.http.get(path).status_code == 200


def test_discovery_lists_kinds_with_their_subresources(served: Served) -> None:
    document = served.http.get("/apis/kubeflow.org/v1beta1").json()
    assert {entry["name"] for entry in document["resources"]} == {
        "experiments",
        "experiments/status",
        "suggestions",
        "suggestions/status",
        "trials",
        "trials/status",
    }
    core = {entry["name"]: entry for entry in served.http.get("/api/v1").json()["resources"]}
    assert core["pods"]["shortNames"] == ["po"]
    assert core["namespaces"]["namespaced"] is False
    assert core["pods/log"]["verbs"] == ["get"]
    assert "configmaps/status" not in core


@pytest.mark.parametrize(
    "path",
    [
        "/apis/unknown.example/v1/things",
        "/api/v1/widgets",
        "/api/v1/pods/x",
        "/api/v1/namespaces/default/configmaps/x/status",
        "/api/v1/namespaces/default/namespaces",
        "/nothing",
        "/openapi/v3/apis/unknown/v1",
    ],
)
def test_an_unknown_path_is_the_usual_404(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["message"] == "the server could not find the requested resource"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps"),
        ("PUT", CONFIG_MAPS),
        ("POST", f"{CONFIG_MAPS}/x"),
        ("DELETE", f"{EXPERIMENTS}/x/status"),
        ("POST", "/version"),
        ("OPTIONS", CONFIG_MAPS),
    ],
)
def test_a_verb_that_does_not_fit_is_405(served: Served, method: str, path: str) -> None:
    answer = served.http.request(method, path, json={})
    assert answer.status_code == 405
    assert answer.json()["reason"] == "MethodNotAllowed"


def test_create_get_replace_and_delete(served: Served) -> None:
    created = served.http.post(EXPERIMENTS, json=experiment_manifest("x"))
    assert created.status_code == 201
    obj = created.json()
    assert obj["metadata"]["generation"] == 1
    assert served.http.get(f"{EXPERIMENTS}/x").json() == obj
    obj["spec"]["maxTrialCount"] = 4
    replaced = served.http.put(f"{EXPERIMENTS}/x", json=obj).json()
    assert replaced["metadata"]["generation"] == 2
    deleted = served.http.delete(f"{EXPERIMENTS}/x").json()
    assert deleted["status"] == "Success"
    assert deleted["details"]["uid"] == obj["metadata"]["uid"]
    assert served.http.get(f"{EXPERIMENTS}/x").json()["message"] == 'experiments.kubeflow.org "x" not found'


def test_conflict_and_already_exists_are_told_in_kubernetes_words(served: Served) -> None:
    stale = served.http.post(EXPERIMENTS, json=experiment_manifest("x")).json()
    again = served.http.post(EXPERIMENTS, json=experiment_manifest("x"))
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")
    assert again.json()["message"] == 'experiments.kubeflow.org "x" already exists'
    changed = {**stale, "spec": {"maxTrialCount": 5}}
    assert served.http.put(f"{EXPERIMENTS}/x", json=changed).status_code == 200
    late = served.http.put(f"{EXPERIMENTS}/x", json=changed)
    assert (late.status_code, late.json()["reason"]) == (409, "Conflict")
    assert late.json()["message"] == (
        'Operation cannot be fulfilled on experiments.kubeflow.org "x": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_the_status_subresource_changes_the_status_only(served: Served) -> None:
    obj = served.http.post(EXPERIMENTS, json=experiment_manifest("x") | {"status": {"trials": 9}}).json()
    assert "status" not in obj
    obj["status"], obj["spec"] = {"trials": 1}, {}
    written = served.http.put(f"{EXPERIMENTS}/x/status", json=obj).json()
    assert (written["status"], written["spec"]) == ({"trials": 1}, {"maxTrialCount": 3})
    assert written["metadata"]["generation"] == 1
    patched = served.http.patch(
        f"{EXPERIMENTS}/x/status",
        content=json.dumps({"status": {"trialsRunning": 2}, "spec": {"maxTrialCount": 0}}),
        headers={"content-type": "application/merge-patch+json"},
    ).json()
    assert (patched["status"], patched["spec"]) == ({"trials": 1, "trialsRunning": 2}, {"maxTrialCount": 3})
    assert served.http.get(f"{EXPERIMENTS}/x/status").json() == patched


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/merge-patch+json", {"data": {"a": None, "c": "3"}}, {"b": "2", "c": "3"}),
        ("application/json-patch+json", [{"op": "remove", "path": "/data/a"}], {"b": "2"}),
        ("application/strategic-merge-patch+json", {"data": {"$patch": "replace", "z": "0"}}, {"z": "0"}),
    ],
)
def test_patches_of_each_content_type(served: Served, content_type: str, body: Any, data: dict[str, str]) -> None:
    served.create_config_map("c", a="1", b="2")
    answer = served.http.patch(f"{CONFIG_MAPS}/c", content=json.dumps(body), headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["data"]) == (200, data)


def test_head_is_no_verb_of_the_api(served: Served) -> None:
    assert served.http.head(CONFIG_MAPS).status_code == 405
    assert served.http.get(CONFIG_MAPS).status_code == 200


def test_server_side_apply_creates_and_then_replaces_what_its_manager_applied(served: Served) -> None:
    headers = {"content-type": "application/apply-patch+yaml"}
    url = f"{CONFIG_MAPS}/c?fieldManager=me"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    assert served.http.patch(url, content=yaml.safe_dump(body), headers=headers).status_code == 201
    body["data"] = {"b": "2"}
    merged = served.http.patch(url, content=yaml.safe_dump(body), headers=headers)
    assert (merged.status_code, merged.json()["data"]) == (200, {"b": "2"})
    unnamed = served.http.patch(f"{CONFIG_MAPS}/c", content=yaml.safe_dump(body), headers=headers)
    assert unnamed.status_code == 400
    elsewhere = served.http.patch(url.replace("/c?", "/d?"), content=yaml.safe_dump(body), headers=headers)
    assert elsewhere.status_code == 400
    assert "does not match the name on the URL (d)" in elsewhere.json()["message"]


def test_an_unknown_patch_format_is_415_with_the_known_ones(served: Served) -> None:
    served.http.post(EXPERIMENTS, json=experiment_manifest("x"))
    headers = {"content-type": "application/strategic-merge-patch+json"}
    answer = served.http.patch(f"{EXPERIMENTS}/x", content="{}", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["message"] == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", 400),
        (b'{"metadata":{"name":"c"},"data":{"x":NaN}}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"metadata":{"name":"c"},"data":{"x":"\\ud800"}}', "application/json", 400),
        (b'{"metadata":{"name":"c"},"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "application/json", 400),
        (b'{"apiVersion":"v2","metadata":{"name":"c"}}', "application/json", 400),
        (b'{"kind":"Pod","metadata":{"name":"c"}}', "application/json", 400),
        (b'{"metadata":{"name":"c","labels":{"a":1}}}', "application/json", 400),
        (b'{"metadata":{"name":"c","namespace":"other"}}', "application/json", 400),
        (b'{"metadata":{"name":"C_"}}', "application/json", 422),
        (b"{}", "application/json", 422),
        (b"{}", "application/vnd.kubernetes.protobuf", 400),
        (b"k8s\0\n\x0f\n\x02v1\x12\tEndpoints\x12\0", "application/vnd.kubernetes.protobuf", 415),
        (b"k8s\0\n\x0f\n\x02v1", "application/vnd.kubernetes.protobuf", 400),
        (b"{}", "text/csv", 415),
        (b'{"metadata":{"name":"c"},"data":{"x":1}}', "application/json", 400),
        (b'{"metadata":{"name":"c"},"data":{"x":"' + b"a" * 3_200_000 + b'"}}', "application/json", 413),
    ],
)
def test_a_bad_body_is_refused_with_a_status(served: Served, body: bytes, content_type: str, code: int) -> None:
    answer = served.http.post(CONFIG_MAPS, content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["kind"]) == (code, "Status")


def test_yaml_bodies_are_read(served: Served) -> None:
    headers = {"content-type": "application/yaml"}
    answer = served.http.post(CONFIG_MAPS, content="metadata: {name: c}\ndata: {a: b}\n", headers=headers)
    assert answer.json()["data"] == {"a": "b"}


def test_put_under_another_name_is_refused(served: Served) -> None:
    obj = served.create_config_map("c")
    answer = served.http.put(f"{CONFIG_MAPS}/d", json=obj)
    assert answer.status_code == 400
    assert "does not match the name on the URL (d)" in answer.json()["message"]


def test_dry_run_answers_but_keeps_nothing(served: Served) -> None:
    answer = served.http.post(f"{CONFIG_MAPS}?dryRun=All", json={"metadata": {"name": "c"}})
    assert (answer.status_code, answer.json()["metadata"]["name"]) == (201, "c")
    assert served.http.get(f"{CONFIG_MAPS}/c").status_code == 404
    served.create_config_map("c")
    assert served.http.delete(f"{CONFIG_MAPS}/c?dryRun=All").status_code == 200
    assert served.http.get(f"{CONFIG_MAPS}/c").status_code == 200
    assert served.http.post(f"{CONFIG_MAPS}?dryRun=Some", json={}).status_code == 400


def test_delete_honours_preconditions_from_the_body(served: Served) -> None:
    obj = served.create_config_map("c")
    wrong = served.http.request("DELETE", f"{CONFIG_MAPS}/c", json={"preconditions": {"uid": "other"}})
    assert (wrong.status_code, wrong.json()["reason"]) == (409, "Conflict")
    right = {"preconditions": {"uid": obj["metadata"]["uid"]}}
    assert served.http.request("DELETE", f"{CONFIG_MAPS}/c", json=right).status_code == 200


def test_a_job_deleted_without_a_policy_orphans_its_pods_and_warns(served: Served) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    served.http.post(jobs, json={"metadata": {"name": "j"}, "spec": {}})
    answer = served.http.delete(f"{jobs}/j")
    assert answer.json()["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default" in answer.headers["warning"]
    served.http.post(jobs, json={"metadata": {"name": "k"}, "spec": {}})
    background = served.http.delete(f"{jobs}/k?propagationPolicy=Background")
    assert background.json()["status"] == "Success"
    assert "warning" not in background.headers
