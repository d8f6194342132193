"""What the server says about itself: discovery in both forms, schemas, unknown fields, reviews."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.admission.openapi import OPENAPI_SCHEMAS
from airflow_llmtune.controlplane.apiserver.discovery import Discovery
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.field_validation import unknown_field_warnings
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONTROLLER_REVISION,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    EVENT,
    EXPERIMENT,
    JOB,
    JOB_SET,
    KINDS,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PYTORCH_JOB,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    SUGGESTION,
    TRAIN_JOB,
    TRIAL,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.openapi import OpenApi
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.apiserver.reviews import ACCESS, RULES, WHO_AM_I, answer
from definitions import definition, version

Object = dict[str, Any]


@pytest.fixture
def discovery(registry: Registry) -> Discovery:
    versions = (version("v1"), version("v1beta1", storage=False))
    registry.create(CUSTOM_RESOURCE_DEFINITION, definition(*versions))
    return Discovery(registry.kinds)


@pytest.fixture
def openapi(registry: Registry, discovery: Discovery) -> OpenApi:
    return OpenApi(registry.kinds, OPENAPI_SCHEMAS)


def document(discovery: Discovery, path: str) -> Object:
    found = discovery.document(path, "host")
    assert found is not None
    return found


def test_groups_come_with_the_preferred_version_first(discovery: Discovery) -> None:
    groups = {group["name"]: group for group in document(discovery, "apis")["groups"]}
    assert [one["version"] for one in groups["kubeflow.org"]["versions"]] == ["v1", "v1beta1"]
    assert groups["example.com"]["preferredVersion"]["groupVersion"] == "example.com/v1"
    assert document(discovery, "apis/example.com")["versions"] == groups["example.com"]["versions"]
    assert {"authorization.k8s.io", "authentication.k8s.io", "apiextensions.k8s.io"} <= groups.keys()


def test_resources_of_a_definition_are_listed_with_their_names(discovery: Discovery) -> None:
    main, status = document(discovery, "apis/example.com/v1beta1")["resources"]
    assert (main["name"], main["shortNames"], main["namespaced"]) == ("widgets", ["widgets-short"], True)
    assert (status["name"], status["verbs"]) == ("widgets/status", ["get", "patch", "update"])


@pytest.mark.parametrize("path", ["api/v2", "apis/nowhere", "apis/batch/v9", "apis/example.com/v2", "else"])
def test_what_is_not_served_has_no_document(discovery: Discovery, path: str) -> None:
    assert discovery.document(path, "host") is None
    assert discovery.aggregated(path) is None


def test_the_aggregated_form_says_the_same(discovery: Discovery) -> None:
    both = [discovery.aggregated("api"), discovery.aggregated("apis")]
    seen = {
        (group["metadata"]["name"], one["version"], resource["resource"])
        for form in both
        if form is not None
        for group in form["items"]
        for one in group["versions"]
        for resource in one["resources"]
    }
    assert {(kind.group, kind.version, kind.plural) for kind in KINDS} <= seen
    assert ("example.com", "v1beta1", "widgets") in seen


def schemas(openapi: OpenApi, root: str) -> Object:
    found = openapi.document(f"openapi/v3/{root}")
    assert found is not None
    kinds: Object = found["components"]["schemas"]
    return {name.rpartition(".")[2]: schema for name, schema in kinds.items()}


def test_schemas_show_the_fields_of_typed_kinds_and_of_definitions(openapi: OpenApi) -> None:
    experiment = schemas(openapi, "apis/kubeflow.org/v1beta1")["Experiment"]["properties"]["spec"]["properties"]
    assert experiment["parallelTrialCount"]["type"] == "integer"
    pod = schemas(openapi, "apis/batch/v1")["Job"]["properties"]["spec"]["properties"]["template"]["properties"]["spec"]
    assert pod["properties"]["containers"]["items"]["properties"]["command"]["type"] == "array"
    assert "size" in schemas(openapi, "apis/example.com/v1")["Widget"]["properties"]["spec"]["properties"]
    assert openapi.document("openapi/v3/apis/nowhere/v1") is None
    assert openapi.document("openapi") is None


# The kinds that have no spec, by a field that they have instead.
WITHOUT_SPEC = {
    "Secret": "data",
    "ConfigMap": "data",
    "Event": "involvedObject",
    "ServiceAccount": "secrets",
    "Role": "rules",
    "RoleBinding": "roleRef",
}


# A ControllerRevision's data may be anything.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != CONTROLLER_REVISION], ids=str)
def test_the_fields_of_every_kind_are_told(openapi: OpenApi, kind: Kind) -> None:
    root = f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"
    fields = schemas(openapi, root)[kind.name]["properties"]
    for name in [WITHOUT_SPEC.get(kind.name, "spec"), *(["status"] if kind.has_status else [])]:
        told = fields[name].get("items", fields[name])
        assert told.get("properties") or told["additionalProperties"] == {"type": "string"}, name


ONLY_TOLD = (
    *(NAMESPACE, SERVICE, EVENT, SERVICE_ACCOUNT, PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME, NODE),
    *(ROLE, ROLE_BINDING, CUSTOM_RESOURCE_DEFINITION, EXPERIMENT, SUGGESTION, TRIAL, PYTORCH_JOB),
)


@pytest.mark.parametrize("kind", ONLY_TOLD, ids=str)
def test_fields_that_are_only_told_refuse_nothing(openapi: OpenApi, kind: Kind) -> None:
    sent = {
        "other": 1,
        "spec": {"other": {"deep": 1}, "template": {"spec": {"containers": [{"other": 1}]}}, "runPolicy": {"other": 1}},
        "status": {"other": 1, "conditions": [{"other": 1}]},
        "rules": [{"other": 1}],
    }
    assert unknown_field_warnings(kind, sent, openapi.schema(kind), "Strict") == []


@pytest.mark.parametrize("kind", [POD, JOB, DEPLOYMENT, REPLICA_SET, JOB_SET, TRAIN_JOB], ids=str)
def test_the_status_of_a_checked_kind_refuses_nothing(openapi: OpenApi, kind: Kind) -> None:
    sent = {"status": {"other": 1, "conditions": [{"other": 1}]}}
    assert unknown_field_warnings(kind, sent, openapi.schema(kind), "Strict") == []


def test_both_versions_of_openapi_name_every_kind(openapi: OpenApi) -> None:
    index, old = openapi.document("openapi/v3"), openapi.document("openapi/v2")
    assert index is not None
    assert old is not None
    assert "apis/example.com/v1" in index["paths"]
    assert len(old["definitions"]) == len(old["paths"]) == len(KINDS) + 2


@pytest.mark.parametrize(
    ("kind", "obj", "unknown"),
    [
        (POD, {"spec": {"containres": []}}, ["spec.containres"]),
        (
            JOB,
            {"spec": {"template": {"spec": {"containers": [{"imag": "x"}]}}}},
            ["spec.template.spec.containers[0].imag"],
        ),
        (POD, {"spec": {"securityContext": {"anything": 1}, "$setElementOrder/containers": []}}, []),
        (EXPERIMENT, {"spec": {"unknown": 1}, "other": 2}, []),
        (EXPERIMENT, {"metadata": {"name": "x", "label": {}, "$patch": "merge"}}, ["metadata.label"]),
    ],
)
def test_unknown_fields_are_found(openapi: OpenApi, kind: Kind, obj: Object, unknown: list[str]) -> None:
    wanted = [f'unknown field "{path}"' for path in unknown]
    assert unknown_field_warnings(kind, obj, openapi.schema(kind), "Warn") == wanted
    assert unknown_field_warnings(kind, obj, openapi.schema(kind), "Ignore") == []


def test_strict_validation_refuses(openapi: OpenApi) -> None:
    with pytest.raises(ApiError, match=r'strict decoding error: unknown field "spec\.x", unknown field "y"'):
        unknown_field_warnings(POD, {"spec": {"x": 1}, "y": 2}, openapi.schema(POD), "Strict")
    with pytest.raises(ApiError, match="invalid fieldValidation: Loud"):
        unknown_field_warnings(POD, {}, None, "Loud")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ACCESS, "allowed", True),
        (RULES, "incomplete", False),
        (
            WHO_AM_I,
            "userInfo",
            {"username": "system:llmtune-admin", "groups": ["system:masters", "system:authenticated"]},
        ),
    ],
)
def test_reviews_are_answered(kind: Kind, field: str, value: Any) -> None:
    assert answer(kind, {"spec": {"a": 1}})["status"][field] == value
