"""What is added to a pod so that its models are there when its server starts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_llmtune.controlplane.admission.storage_credentials import credentials
from airflow_llmtune.controlplane.admission.storage_initializer import inject_models
from airflow_llmtune.controlplane.admission.storage_uris import claim_of, common_parent, unsupported
from airflow_llmtune.controlplane.apiserver.kinds import POD, SECRET, SERVICE_ACCOUNT, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused

SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
HUB = ["HF_HUB_ENABLE_HF_TRANSFER", "HF_XET_HIGH_PERFORMANCE", "HF_XET_NUM_CONCURRENT_RANGE_GETS"]


def pod(uri: str, **annotations: str) -> Object:
    labels = {"serving.kserve.io/inferenceservice": "model"}
    env = [{"name": "STORAGE_URI", "value": uri}]
    return {
        "metadata": {"name": "p", "labels": labels, "annotations": {SOURCE: uri, **annotations}},
        "spec": {"containers": [{"name": "kserve-container", "image": "x", "env": env}]},
    }


def admitted(registry: Registry, made: Object) -> Object:
    spec: Object = registry.create(POD, made, "plain")["spec"]
    return spec


def test_a_model_is_fetched_into_a_volume_of_the_pod(registry: Registry) -> None:
    spec = admitted(registry, pod("s3://b/a"))
    (container,), (initializer,) = spec["containers"], spec["initContainers"]
    mount = {"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True}
    assert spec["volumes"] == [{"name": "kserve-provision-location", "emptyDir": {}}]
    assert container["volumeMounts"] == [mount]
    assert container["env"] == [{"name": "STORAGE_URI", "value": "/mnt/models"}]
    assert initializer["name"] == "storage-initializer"
    assert initializer["args"] == ["s3://b/a", "/mnt/models"]
    assert initializer["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert initializer["volumeMounts"] == [{**mount, "readOnly": False}]
    assert [one["name"] for one in initializer["env"]] == HUB


def test_a_claim_is_mounted_with_its_path(registry: Registry) -> None:
    spec = admitted(registry, pod("pvc://models/team/chat", **{"storage.kserve.io/readonly": "false"}))
    assert "initContainers" not in spec
    assert spec["volumes"] == [{"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": "models"}}]
    mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "readOnly": False, "subPath": "team/chat"}
    assert spec["containers"][0]["volumeMounts"] == [mount]


def test_pods_of_others_and_pods_that_have_it_are_left_alone(registry: Registry) -> None:
    other = pod("s3://b/a")
    del other["metadata"]["labels"]
    assert "initContainers" not in admitted(registry, other)
    own = pod("s3://b/a")
    own["metadata"]["name"] = "q"
    own["spec"]["initContainers"] = [{"name": "storage-initializer", "image": "own"}]
    assert admitted(registry, own)["initContainers"][0]["image"] == "own"


def test_several_models_share_one_volume() -> None:
    spec: Object = {"containers": [{"name": "kserve-container"}, {"name": "transformer-container"}, {"name": "log"}]}
    uris = [
        {"uri": "hf://org/base", "mountPath": "/mnt/models/base"},
        {"uri": "s3://b/lora", "mountPath": "/mnt/models/lora"},
        {"uri": "pvc://data/deep/path", "mountPath": "/mnt/data"},
    ]
    inject_models(spec, uris, "default", {}, lambda *_: None)
    inject_models(spec, uris, "default", {}, lambda *_: None)
    (initializer,) = spec["initContainers"]
    assert initializer["args"] == ["hf://org/base", "/mnt/models/base", "s3://b/lora", "/mnt/models/lora"]
    assert initializer["volumeMounts"] == [{"name": "mnt-models", "mountPath": "/mnt/models", "readOnly": False}]
    assert spec["volumes"] == [
        {"name": "mnt-data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "mnt-models", "emptyDir": {}},
    ]
    mounts = [
        {"name": "mnt-data", "mountPath": "/mnt/data", "readOnly": True},
        {"name": "mnt-models", "mountPath": "/mnt/models", "readOnly": True},
    ]
    assert [one.get("volumeMounts") for one in spec["containers"]] == [mounts, mounts, None]


def secret(name: str = "s", *, annotations: Object | None = None, **data: str) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": name, "annotations": annotations or {}}, "data": encoded}


def env_of(secrets: list[Object], *, notes: Object | None = None, account: Object | None = None) -> Object:
    references = [{"name": one["metadata"]["name"]} for one in secrets]
    known = {
        (SERVICE_ACCOUNT, "reader"): {"metadata": {"annotations": account or {}}, "secrets": references},
        **{(SECRET, one["metadata"]["name"]): one for one in secrets},
    }

    def find(kind: Kind, namespace: str, name: str) -> Object | None:
        return known.get((kind, name))

    found = credentials("default", "reader", notes or {}, find)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in found}


def key_of(name: str, key: str) -> Object:
    return {"secretKeyRef": {"name": name, "key": key}}


KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
REFERENCES = {name: key_of("s", name) for name in KEYS}


@pytest.mark.parametrize(
    ("notes", "data", "expected"),
    [
        ({}, {}, {}),
        (
            {"s3-endpoint": "127.0.0.1:9000", "s3-usehttps": "0", "s3-region": "eu", "s3-verifyssl": "0"},
            {},
            {
                "S3_USE_HTTPS": "0",
                "S3_ENDPOINT": "127.0.0.1:9000",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
                "S3_VERIFY_SSL": "0",
                "AWS_DEFAULT_REGION": "eu",
            },
        ),
        (
            {"s3-endpoint": "store"},
            {},
            {"S3_ENDPOINT": "store", "AWS_ENDPOINT_URL": "https://store"},
        ),
        (
            {"s3-endpoint": " http://store:1 ", "s3-usehttps": "1"},
            {},
            {"S3_USE_HTTPS": "0", "S3_ENDPOINT": "store:1", "AWS_ENDPOINT_URL": "http://store:1"},
        ),
        (
            {"s3-useanoncredential": "true"},
            {"S3_ENDPOINT": "of-secret", "S3_USE_HTTPS": "1"},
            {
                "S3_USE_HTTPS": "1",
                "S3_ENDPOINT": "of-secret",
                "AWS_ENDPOINT_URL": "https://of-secret",
                "awsAnonymousCredential": "true",
            },
        ),
    ],
)
def test_a_secret_of_the_account_gives_keys_and_endpoint(notes: Object, data: Object, expected: Object) -> None:
    annotations = {f"serving.kserve.io/{name}": value for name, value in notes.items()}
    assert env_of([secret(annotations=annotations, **KEYS, **data)]) == {**REFERENCES, **expected}


def test_tokens_of_the_hub_and_secrets_that_nobody_knows() -> None:
    assert env_of([secret(HF_TOKEN="t"), secret("odd", password="p")]) == {"HF_TOKEN": key_of("s", "HF_TOKEN")}


def test_an_annotation_names_the_only_secret_that_counts() -> None:
    notes = {"serving.kserve.io/storageSecretName": "chosen"}
    assert env_of([secret(**KEYS), secret("chosen", HF_TOKEN="t")], notes=notes) == {
        "HF_TOKEN": key_of("chosen", "HF_TOKEN")
    }


def test_an_account_with_a_role_brings_the_endpoint() -> None:
    account = {"eks.amazonaws.com/role-arn": "r", "serving.kserve.io/s3-region": "eu"}
    assert env_of([], account=account) == {"AWS_DEFAULT_REGION": "eu"}


def test_a_secret_that_is_not_there_refuses_the_pod(registry: Registry) -> None:
    registry.create(SERVICE_ACCOUNT, {"metadata": {"name": "reader"}, "secrets": [{"name": "gone"}]}, "plain")
    made = pod("s3://b/a")
    made["spec"]["serviceAccountName"] = "reader"
    assert refused(registry.create, POD, made, "plain").message == 'secrets "gone" not found'


@pytest.mark.parametrize(
    ("uri", "is_taken"),
    [
        ("s3://b/a", True),
        ("hf://org/model", True),
        ("/models/chat", True),
        ("models/chat", True),
        ("https://acme.blob.core.windows.net/c/m", True),
        ("https://blob.core.windows.net", False),
        ("ftp://host/a", False),
    ],
)
def test_places_that_models_come_from(uri: str, is_taken: bool) -> None:
    complaint = unsupported(uri)
    assert (complaint == "") == is_taken
    assert is_taken or complaint == (
        "storageUri, must be one of: [gs://, s3://, pvc://, file://, https://, http://, hdfs://, webhdfs://, oci://, "
        "oci+native://, hf://] or match https://{}.blob.core.windows.net/{}/{} or be an absolute or relative local "
        f"path. StorageUri [{uri}] is not supported"
    )


@pytest.mark.parametrize(
    ("paths", "parent"),
    [
        (["/mnt/models"], "/mnt/models"),
        (["/mnt/models/a", "/mnt/models/b"], "/mnt/models"),
        (["/mnt/models", "/mnt/models/b"], "/mnt/models"),
        (["/a", "/b"], "/"),
    ],
)
def test_the_common_parent(paths: list[str], parent: str) -> None:
    assert common_parent(paths) == parent


@pytest.mark.parametrize(
    ("uri", "claim"), [("pvc://a", ("a", "")), ("pvc://a/b", ("a", "b")), ("pvc://a/b/c", ("a", "b/c"))]
)
def test_claims(uri: str, claim: Any) -> None:
    assert claim_of(uri) == claim
