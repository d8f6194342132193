"""Kubernetes' rules for creating any object."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EXPERIMENT,
    NAMESPACE,
    POD,
    SECRET,
    SERVICE,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import experiment
from registries import create, refused


def test_create_fills_in_what_the_server_owns(registry: Registry) -> None:
    given = experiment(uid="mine", resourceVersion="7", deletionTimestamp="2020-01-01T00:00:00Z", generation=9)
    obj = create(registry, obj=given | {"status": {"trials": 5}})
    metadata = obj["metadata"]
    assert (obj["apiVersion"], obj["kind"]) == ("kubeflow.org/v1beta1", "Experiment")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert metadata["creationTimestamp"] == "2026-11-22T09:00:00Z"
    assert (metadata["generation"], metadata["namespace"]) == (1, "default")
    assert "deletionTimestamp" not in metadata
    assert "status" not in obj
    assert metadata["resourceVersion"] not in {"", "7"}
    assert registry.get(EXPERIMENT, "default", "x") == obj


def test_create_passes_admission_with_the_namespace(registry: Registry, admission: Any) -> None:
    obj = create(registry)
    assert obj["spec"]["parallelTrialCount"] == 3
    assert admission.calls == [("CREATE", "Experiment", False, "default")]


def test_a_status_that_admission_sets_is_kept(registry: Registry) -> None:
    obj = create(registry, POD, {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Succeeded"}})
    assert obj["status"] == {"phase": "Pending"}


def test_what_admission_refuses_is_not_stored(registry: Registry, admission: Any) -> None:
    admission.refusal = denied_by_webhook("validator.experiment.katib.kubeflow.org", "no")
    error = refused(create, registry)
    assert error.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: no',
        "code": 400,
    }
    assert registry.list(EXPERIMENT) == ([], registry.resource_version)


def test_a_second_create_of_a_name_is_already_exists(registry: Registry) -> None:
    create(registry)
    error = refused(create, registry)
    assert (error.code, error.reason) == (409, "AlreadyExists")
    assert error.message == 'experiments.kubeflow.org "x" already exists'
    assert error.status["details"] == {"name": "x", "group": "kubeflow.org", "kind": "experiments"}


def test_names_are_generated_from_a_prefix(registry: Registry) -> None:
    first, second = (create(registry, obj={"metadata": {"generateName": "x-"}}) for _ in range(2))
    assert re.fullmatch(r"x-[bcdfghjklmnpqrstvwxz2456789]{5}", first["metadata"]["name"])
    assert first["metadata"]["name"] != second["metadata"]["name"]
    long = create(registry, obj={"metadata": {"generateName": "a" * 80}})
    assert len(long["metadata"]["name"]) == 63


@pytest.mark.parametrize(
    ("kind", "metadata", "message"),
    [
        (EXPERIMENT, {}, "metadata.name: Required value: name or generateName is required"),
        (EXPERIMENT, {"name": "A"}, 'metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must'),
        (EXPERIMENT, {"name": "a" * 254}, "must be no more than 253 characters"),
        (NAMESPACE, {"name": "a.b"}, 'metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must'),
        (SERVICE, {"name": "1a"}, 'metadata.name: Invalid value: "1a": a DNS-1035 label must'),
        (POD, {"name": "p", "labels": {"a b": "c"}}, 'metadata.labels: Invalid value: "a b": name part must'),
        (POD, {"name": "p", "labels": {"a": "b c"}}, 'metadata.labels: Invalid value: "b c": a valid label must'),
        (POD, {"name": "p", "labels": {"a": "b" * 64}}, "must be no more than 63 characters"),
        (POD, {"name": "p", "annotations": {"/x": ""}}, 'metadata.annotations: Invalid value: "/x"'),
        (
            POD,
            {"name": "p", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "q"}]},
            'metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty',
        ),
        (
            POD,
            {
                "name": "p",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name, "controller": True}
                    for name in ("q", "r")
                ],
            },
            'Only one reference can have Controller set to true. Found "true" in references for Pod/q and Pod/r',
        ),
    ],
)
def test_bad_metadata_is_invalid(registry: Registry, kind: Kind, metadata: dict[str, Any], message: str) -> None:
    error = refused(create, registry, kind, {"metadata": metadata})
    assert (error.code, error.reason) == (422, "Invalid")
    assert message in error.message
    assert error.message.startswith(f'{kind} "{metadata.get("name", "")}" is invalid: ')


def test_all_mistakes_in_metadata_are_told_at_once(registry: Registry) -> None:
    error = refused(create, registry, POD, {"metadata": {"name": "P", "labels": {"a": "b c"}}})
    assert [cause["field"] for cause in error.status["details"]["causes"]] == ["metadata.name", "metadata.labels"]
    assert error.message.startswith('Pod "P" is invalid: [metadata.name: ')


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"apiVersion": "v2"}, "the API version in the data (v2) does not match the expected API version"),
        ({"kind": "Trial"}, "the kind in the data (Trial) does not match the expected kind (Experiment)"),
        ({"metadata": []}, "cannot unmarshal array into Go struct field ObjectMeta.metadata"),
        ({"metadata": {"labels": {"a": 1}}}, "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels"),
        ({"metadata": {"labels": "a"}}, "cannot unmarshal string"),
        ({"metadata": {"name": 3}}, "cannot unmarshal number into Go struct field ObjectMeta.metadata.name"),
        ({"metadata": {"finalizers": "a"}}, "cannot unmarshal string"),
        ({"metadata": {"name": "x", "namespace": "b"}}, "the namespace of the provided object does not match"),
        ({"metadata": {"name": "x"}, "spec": {"a": float("nan")}}, "the object provided is unrecognized"),
        ({"metadata": {"name": "x"}, "spec": {"a": object()}}, "the object provided is unrecognized"),
    ],
)
def test_what_a_typed_decoder_would_not_read_is_a_bad_request(
    registry: Registry, obj: dict[str, Any], message: str
) -> None:
    error = refused(create, registry, obj=obj)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert message in error.message


def test_the_namespace_must_exist_and_live(registry: Registry) -> None:
    error = refused(registry.create, EXPERIMENT, experiment(), "nowhere")
    assert (error.code, error.message) == (404, 'namespaces "nowhere" not found')
    registry.delete(NAMESPACE, None, "default")
    error = refused(create, registry)
    assert (error.code, error.reason) == (403, "Forbidden")
    assert "unable to create new content in namespace default because it is being terminated" in error.message
    assert refused(registry.create, EXPERIMENT, experiment()).code == 400


def test_the_namespace_may_come_from_the_object(registry: Registry) -> None:
    obj = registry.create(EXPERIMENT, experiment(namespace="default"))
    assert obj["metadata"]["namespace"] == "default"


def test_a_dry_run_checks_everything_and_keeps_nothing(registry: Registry) -> None:
    version = registry.resource_version
    obj = registry.create(EXPERIMENT, experiment(), "default", dry_run=True)
    assert obj["metadata"]["uid"]
    assert registry.find(EXPERIMENT, "default", "x") is None
    assert registry.resource_version == version
    create(registry)
    assert refused(registry.create, EXPERIMENT, experiment(), "default", dry_run=True).reason == "AlreadyExists"


def test_given_objects_are_not_changed_and_results_are_copies(registry: Registry) -> None:
    given = experiment()
    obj = create(registry, obj=given)
    assert given == experiment()
    obj["spec"]["maxTrialCount"] = 99
    assert registry.get(EXPERIMENT, "default", "x")["spec"]["maxTrialCount"] == 3
    items, _ = registry.list(EXPERIMENT)
    items[0]["spec"].clear()
    assert registry.get(EXPERIMENT, "default", "x")["spec"]["maxTrialCount"] == 3


def test_string_data_of_a_secret_ends_up_encoded(registry: Registry) -> None:
    obj = create(registry, SECRET, {"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "y"}})
    assert (obj["data"], obj["type"]) == ({"a": "eA==", "b": "eQ=="}, "Opaque")
    assert "stringData" not in obj
    patched = registry.patch(SECRET, "default", "s", MERGE, {"stringData": {"a": "z"}})
    assert patched["data"] == {"a": "eg==", "b": "eQ=="}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (SECRET, {"data": {"a": "not base64"}}),
        (SECRET, {"data": {"a": "é"}}),
        (SECRET, {"stringData": {"a": 1}}),
        (CONFIG_MAP, {"data": {"a": True}}),
        (CONFIG_MAP, {"data": ["a"]}),
    ],
)
def test_data_of_the_wrong_type_is_a_bad_request(registry: Registry, kind: Kind, content: dict[str, Any]) -> None:
    assert refused(create, registry, kind, {"metadata": {"name": "s"}} | content).code == 400


NULLS = {"labels": None, "annotations": None, "finalizers": None, "ownerReferences": None, "generateName": None}


def test_nulls_in_the_metadata_are_absent_fields(registry: Registry) -> None:
    metadata = create(registry, obj=experiment(**NULLS))["metadata"]
    assert not NULLS.keys() & metadata.keys()
    updated = registry.update(EXPERIMENT, {**experiment(**NULLS), "metadata": {**metadata, **NULLS}})
    assert not NULLS.keys() & updated["metadata"].keys()


OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"finalizers": [1]},
        {"ownerReferences": ["x"]},
        {"ownerReferences": [{**OWNER, "uid": ["b"]}]},
        {"ownerReferences": [{**OWNER, "name": {}}]},
        {"ownerReferences": [{**OWNER, "kind": None}]},
    ],
)
def test_lists_in_the_metadata_hold_what_controllers_expect(registry: Registry, metadata: dict[str, Any]) -> None:
    error = refused(create, registry, POD, {"metadata": {"name": "p", **metadata}, "spec": {}})
    assert error.code == 400
    assert "cannot unmarshal" in error.message


def test_spec_and_status_are_objects(registry: Registry) -> None:
    assert refused(create, registry, POD, {"metadata": {"name": "p"}, "spec": "x"}).code == 400
    made = create(registry, POD, {"metadata": {"name": "p"}, "spec": {}})
    assert refused(registry.update_status, POD, {**made, "status": "x"}).code == 400
    assert "status" not in registry.update_status(POD, {**made, "status": None})


@pytest.mark.parametrize("kind", [CONFIG_MAP, SECRET])
@pytest.mark.parametrize("key", ["../x", "a/b", "..", ".", "..x", "", "a b"])
def test_keys_that_are_no_file_names_are_refused(registry: Registry, kind: Kind, key: str) -> None:
    error = refused(create, registry, kind, {"metadata": {"name": "c"}, "data": {key: "eA=="}})
    assert (error.code, error.reason) == (422, "Invalid")
    create(registry, kind, {"metadata": {"name": "c"}, "data": {"a.b-C_1": "eA==", ".hidden": "eA=="}})


def test_a_text_that_cannot_be_stored_is_refused(registry: Registry) -> None:
    assert refused(create, registry, CONFIG_MAP, {"metadata": {"name": "c"}, "data": {"k": "\ud800"}}).code == 400


def test_a_generated_name_that_is_taken_is_tried_again_with_another_suffix(registry: Registry) -> None:
    random.seed(7)
    first = registry.create(EXPERIMENT, {"metadata": {"generateName": "e-"}}, "default")["metadata"]["name"]
    random.seed(7)
    second = registry.create(EXPERIMENT, {"metadata": {"generateName": "e-"}}, "default")["metadata"]["name"]
    assert first != second
    assert refused(registry.create, EXPERIMENT, {"metadata": {"name": first}}, "default").reason == "AlreadyExists"


def test_unknown_fields_of_metadata_vanish(registry: Registry) -> None:
    made = registry.create(EXPERIMENT, {"metadata": {"name": "x", "label": {"a": "b"}}}, "default")
    assert "label" not in made["metadata"]


def test_admission_sees_no_object_without_a_name(registry: Registry, admission: Any) -> None:
    assert refused(registry.create, EXPERIMENT, {"spec": {}}, "default").code == 422
    assert admission.calls == []


def test_empty_collections_in_the_metadata_are_absent_fields(registry: Registry) -> None:
    empty: dict[str, Any] = {"labels": {}, "annotations": {}, "finalizers": [], "ownerReferences": []}
    assert empty.keys().isdisjoint(create(registry, obj=experiment(**empty))["metadata"])
