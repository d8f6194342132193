"""InferenceServices that really serve: requests go through the gateway to processes that are cheap to start."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from airflow_llmtune.controlplane import ControlPlane
from serving import container, inference_service, runtime, with_model
from waiting import wait_for

GROUP = ("serving.kserve.io", "v1beta1", "default", "inferenceservices")
SECONDS = 30.0


class Cluster:
    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        api = config.new_client_from_config_dict(yaml.safe_load(plane.kubeconfig))
        self.custom = client.CustomObjectsApi(api)
        self.core = client.CoreV1Api(api)
        self.apps = client.AppsV1Api(api)
        self.made: list[str] = []

    def create(self, service: dict[str, Any]) -> None:
        body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", **service}
        self.custom.create_namespaced_custom_object(*GROUP, body)
        self.made.append(service["metadata"]["name"])

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.custom.get_namespaced_custom_object(*GROUP, name)
        return found

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        self.custom.patch_namespaced_custom_object(*GROUP, name, {"spec": spec})

    def until(self, name: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        return wait_for(lambda: (lambda found: found if holds(found) else None)(self.get(name)), SECONDS)

    def ready(self, name: str) -> dict[str, Any]:
        return self.until(name, lambda found: condition(found, "Ready") == "True")

    def ask(self, url: str, path: str = "/v1/models") -> str:
        request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Bearer {self.plane.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def pods(self, name: str) -> list[Any]:
        selector = f"serving.kserve.io/inferenceservice={name}"
        return list(self.core.list_namespaced_pod("default", label_selector=selector).items)


def condition(found: dict[str, Any], type_: str) -> str:
    conditions = found.get("status", {}).get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == type_), "")


def model_status(found: dict[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = found.get("status", {}).get("modelStatus", {})
    return status


@pytest.fixture(scope="module")
def served() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def cluster(served: ControlPlane) -> Iterator[Cluster]:
    found = Cluster(served)
    yield found
    for name in found.made:
        found.custom.delete_namespaced_custom_object(*GROUP, name)
    wait_for(lambda: not any(found.pods(name) for name in found.made), SECONDS)


class Requests:
    """Sent one after the other while the test goes on; each answer is noted."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self._cluster, self._url = cluster, url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[str] = []

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            try:
                self.answers.append(self._cluster.ask(self._url))
            except urllib.error.URLError as error:
                self.answers.append(f"failed: {error}")


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_an_update_is_served_without_a_gap(cluster: Cluster, mode: str) -> None:
    name = f"update-{mode.lower()}"
    cluster.create(inference_service(name, mode=mode))
    url = cluster.ready(name)["status"]["url"]
    with Requests(cluster, url) as requests:
        cluster.patch(name, {"predictor": {"containers": [container("two")]}})
        wait_for(lambda: requests.answers[-1:] == ["two"], SECONDS)
    assert set(requests.answers) == {"one", "two"}
    # One after the other: who got the new answer does not get the old one again.
    assert requests.answers == sorted(requests.answers)


BROKEN = {
    "crash": container("two", command=["sh", "-c", "echo no model >&2; exit 3"]),
    "memory": container(
        "two",
        command=["python", "-c", "import time; x = 'x' * 2**29; time.sleep(60)"],
        resources={"limits": {"memory": "64Mi"}},
    ),
}


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_broken_update_leaves_the_old_one_serving(cluster: Cluster, mode: str, how: str) -> None:
    name = f"broken-{how}-{mode.lower()}"
    cluster.create(inference_service(name, mode=mode))
    url = cluster.ready(name)["status"]["url"]
    with Requests(cluster, url) as requests:
        cluster.patch(name, {"predictor": {"containers": [BROKEN[how]]}})
        wait_for(lambda: any(_has_crashed(pod) for pod in cluster.pods(name)), SECONDS)
        if mode == "Knative":
            found = cluster.until(name, lambda found: condition(found, "Ready") == "False")
            component = found["status"]["components"]["predictor"]
            assert component["latestCreatedRevision"].endswith("-00002")
            assert component["latestReadyRevision"].endswith("-00001")
        else:
            assert condition(cluster.get(name), "Ready") == "True"
    assert set(requests.answers) == {"one"}
    cluster.patch(name, {"predictor": {"containers": [container("three")]}})
    wait_for(lambda: cluster.ask(url) == "three", SECONDS)


def _has_crashed(pod: Any) -> bool:
    states = pod.status.container_statuses or []
    return any(one.last_state and one.last_state.terminated for one in states)


def test_a_missing_image_leaves_the_old_one_serving(tmp_path: Path) -> None:
    with ControlPlane(images={"known": Path("/usr")}) as plane:
        cluster = Cluster(plane)
        served = container(image="known", command=["python3", *container()["command"][1:]])
        cluster.create(inference_service("image", predictor={"containers": [served]}))
        url = cluster.ready("image")["status"]["url"]
        cluster.patch("image", {"predictor": {"containers": [{**served, "image": "unknown:1"}]}})
        found = cluster.until("image", lambda found: condition(found, "Ready") == "False")
        reason = next(one for one in found["status"]["conditions"] if one["type"] == "PredictorReady")
        assert reason["reason"] == "RevisionFailed"
        assert 'Unable to fetch image "unknown:1"' in reason["message"]
        assert cluster.ask(url) == "one"


def cheap(cluster: Cluster, name: str, **spec: Any) -> None:
    body = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", **runtime(name, name, **spec)}
    cluster.custom.create_namespaced_custom_object("serving.kserve.io", "v1alpha1", "default", "servingruntimes", body)


def with_cheap_model(name: str, model_format: str, mode: str = "", **model: Any) -> dict[str, Any]:
    service = with_model(name, mode=mode, **model)
    service["spec"]["predictor"]["model"]["modelFormat"]["name"] = model_format
    return service


def files(name: str) -> dict[str, Any]:
    return {"args": [f"/mnt/models/{name}"]}


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_a_model_of_the_hosts_disk_is_linked(cluster: Cluster, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "answer").write_text("from disk")
    name = f"disk-{'file' if scheme else 'path'}"
    cheap(cluster, name)
    cluster.create(with_cheap_model(name, name, storageUri=f"{scheme}{tmp_path}", **files("answer")))
    found = cluster.ready(name)
    assert cluster.ask(found["status"]["url"]) == "from disk"
    assert found["status"]["servingRuntimeName"] == name
    # As KServe does, the model's state is told before the ingress' in each look: it follows Ready.
    loaded = {"activeModelState": "Loaded", "targetModelState": "Loaded"}
    cluster.until(name, lambda found: model_status(found).get("states") == loaded)


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_model_that_cannot_be_fetched_is_told(cluster: Cluster, tmp_path: Path, mode: str) -> None:
    name = f"missing-{mode.lower()}"
    cheap(cluster, name)
    cluster.create(with_cheap_model(name, name, mode, storageUri=f"{tmp_path}/none"))
    found = cluster.until(name, lambda found: model_status(found).get("transitionStatus") == "BlockedByFailedLoad")
    failure = model_status(found)["lastFailureInfo"]
    assert (failure["reason"], failure["exitCode"]) == ("ModelLoadFailed", 1)
    assert f"Local path {tmp_path}/none does not exist." in failure["message"]
    assert condition(found, "Ready") != "True"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    import boto3  # What the trainer's image has.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "key", "region_name": "us-east-1"}
    store = boto3.client("s3", endpoint_url=url, **keys)
    store.create_bucket(Bucket="models")
    store.put_object(Bucket="models", Key="chat/base/answer", Body=b"base and ")
    store.put_object(Bucket="models", Key="chat/lora/deep/answer", Body=b"adapter")
    store.put_object(Bucket="models", Key="chat/lora/empty", Body=b"")
    yield f"{host}:{port}"
    server.stop()


def test_models_of_a_bucket_are_fetched_with_the_accounts_secret(cluster: Cluster, bucket: str) -> None:
    annotations = {
        "serving.kserve.io/s3-endpoint": bucket,
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-1",
    }
    data = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    secret = {"metadata": {"name": "store", "annotations": annotations}, "stringData": data}
    cluster.core.create_namespaced_secret("default", secret)
    account = {"metadata": {"name": "reader"}, "secrets": [{"name": "store"}]}
    cluster.core.create_namespaced_service_account("default", account)
    cheap(cluster, "bucket")
    words = ["/mnt/models/base/answer", "/mnt/models/lora/deep/answer"]
    service = with_cheap_model("bucket", "bucket", args=words)
    service["spec"]["predictor"] |= {
        "serviceAccountName": "reader",
        "storageUris": [
            {"uri": "s3://models/chat/base", "mountPath": "/mnt/models/base"},
            {"uri": "s3://models/chat/lora", "mountPath": "/mnt/models/lora"},
        ],
    }
    cluster.create(service)
    assert cluster.ask(cluster.ready("bucket")["status"]["url"]) == "base and adapter"
    assert "key" not in json.dumps([one["value"] for one in _plain_env(cluster.pods("bucket")[0])])
    cluster.patch(
        "bucket",
        {"predictor": {"storageUris": [{"uri": "s3://models/none", "mountPath": "/mnt/models/base"}]}},
    )
    found = cluster.until("bucket", lambda found: model_status(found).get("transitionStatus") == "BlockedByFailedLoad")
    assert "No model found in s3://models/none." in model_status(found)["lastFailureInfo"]["message"]


def _plain_env(pod: Any) -> list[dict[str, Any]]:
    containers = [*pod.spec.containers, *pod.spec.init_containers]
    return [one.to_dict() for each in containers for one in each.env or [] if one.value]


def test_a_claim_is_mounted(cluster: Cluster) -> None:
    claim = {
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.core.create_namespaced_persistent_volume_claim("default", claim)
    mount = {"name": "models", "mountPath": "/data"}
    writer = {
        "metadata": {"name": "writer"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": "x",
                    "command": ["sh", "-c", "mkdir -p /data/team && printf 'of a claim' > /data/team/answer"],
                    "volumeMounts": [mount],
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    }
    cluster.core.create_namespaced_pod("default", writer)
    wait_for(lambda: cluster.core.read_namespaced_pod("writer", "default").status.phase == "Succeeded", SECONDS)
    cheap(cluster, "claim")
    cluster.create(with_cheap_model("claim", "claim", storageUri="pvc://models/team", **files("answer")))
    assert cluster.ask(cluster.ready("claim")["status"]["url"]) == "of a claim"


def test_a_canary_is_served_and_promoted_without_a_gap(cluster: Cluster, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "answer").write_text(version)
    cheap(cluster, "canary")
    cluster.create(with_cheap_model("canary", "canary", "Standard", storageUri=str(tmp_path / "v1"), **files("answer")))
    url = cluster.ready("canary")["status"]["url"]
    model = {"modelFormat": {"name": "canary"}, "storageUri": str(tmp_path / "v2")}
    with Requests(cluster, url) as requests:
        cluster.patch("canary", {"canary": [{"trafficPercent": 50, "predictor": {"name": "v2", "model": model}}]})
        cluster.until("canary", lambda found: condition(found, "CanaryPredictorReady") == "True")
        wait_for(lambda: "v2" in requests.answers, SECONDS)
        stable = {"name": "v2", "model": {**model, **files("answer")}}
        cluster.patch("canary", {"canary": None, "predictor": stable})
        wait_for(lambda: requests.answers[-20:] == ["v2"] * 20, SECONDS)
    assert set(requests.answers) == {"v1", "v2"}
    names = [one.metadata.name for one in cluster.apps.list_namespaced_deployment("default").items]
    assert [one for one in names if one.startswith("canary")] == ["canary-v2-predictor"]


def test_a_deleted_service_takes_all_with_it(cluster: Cluster) -> None:
    cluster.create(inference_service("gone"))
    url = cluster.ready("gone")["status"]["url"]
    cluster.custom.delete_namespaced_custom_object(*GROUP, "gone")
    cluster.made.remove("gone")
    wait_for(lambda: not cluster.pods("gone"), SECONDS)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        cluster.ask(url)


def test_services_go_on_after_a_restart(tmp_path: Path) -> None:
    with ControlPlane(state_dir=tmp_path / "state") as plane:
        cluster = Cluster(plane)
        for mode in ("Standard", "Knative"):
            cluster.create(inference_service(mode.lower(), mode=mode))
        urls = [cluster.ready(name)["status"]["url"] for name in cluster.made]
    with ControlPlane(state_dir=tmp_path / "state") as plane:
        cluster = Cluster(plane)
        found = [cluster.ready(name) for name in ("standard", "knative")]
        assert [one["status"]["url"] for one in found] == urls
        assert [cluster.ask(url) for url in urls] == ["one", "one"]
        assert found[1]["status"]["components"]["predictor"]["latestCreatedRevision"] == "knative-predictor-00001"
        names = sorted(one.metadata.name for one in cluster.apps.list_namespaced_deployment("default").items)
        assert names == ["knative-predictor-00001-deployment", "standard-predictor"]


def test_an_llm_service_is_served_by_its_own_path(cluster: Cluster) -> None:
    group = ("serving.kserve.io", "v1alpha2", "default", "llminferenceservices")
    command = container("of an LLM")["command"]
    env = [{"name": "ANSWER", "value": "of an LLM"}, {"name": "PORT", "value": "8000"}]
    spec = {
        "model": {"uri": "hf://org/base"},
        "router": {"route": {}, "gateway": {}},
        "storageInitializer": {"enabled": False},
        "template": {"containers": [{"name": "main", "command": command, "env": env}]},
    }
    body = {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "metadata": {"name": "llm"}}
    cluster.custom.create_namespaced_custom_object(*group, {**body, "spec": spec})

    def ready() -> dict[str, Any] | None:
        found: dict[str, Any] = cluster.custom.get_namespaced_custom_object(*group, "llm")
        return found if condition(found, "Ready") == "True" else None

    found = wait_for(ready, SECONDS)
    assert found["status"]["url"] == f"{cluster.plane.gateway_url}/default/llm"
    assert cluster.ask(found["status"]["url"]) == "of an LLM"
    cluster.custom.delete_namespaced_custom_object(*group, "llm")
    selector = "app.kubernetes.io/name=llm"
    wait_for(lambda: not cluster.core.list_namespaced_pod("default", label_selector=selector).items, SECONDS)


@pytest.mark.parametrize("field", ["modle", "model.storageUrl", "containers.0.comand"])
def test_strict_field_validation_names_an_unknown_field(cluster: Cluster, field: str) -> None:
    predictor: Any = with_model()["spec"]["predictor"] | inference_service()["spec"]["predictor"]
    place = predictor
    *path, last = field.split(".")
    for step in path:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = "x"
    body = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "strict"},
        "spec": {"predictor": predictor},
    }
    with pytest.raises(client.ApiException) as raised:
        cluster.custom.create_namespaced_custom_object(*GROUP, body, field_validation="Strict", dry_run="All")
    assert raised.value.status == 400
    shown = field.replace(".0.", "[0].")
    assert f'unknown field \\"spec.predictor.{shown}\\"' in raised.value.body
