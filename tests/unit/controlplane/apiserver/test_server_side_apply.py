"""Who owns which field, who may take it, and what goes when its owner leaves it out."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    EXPERIMENT,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.patch import JSON, MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from definitions import definition, widget
from registries import refused

Object = dict[str, Any]


def config(**data: str) -> Object:
    return {"metadata": {"name": "c"}, "data": data}


def apply(registry: Registry, applied: Object, manager: str = "one", kind: Kind = CONFIG_MAP, **options: Any) -> Object:
    return registry.apply(kind, "default", applied["metadata"]["name"], applied, manager=manager, **options)


def owners(obj: Object) -> dict[str, Object]:
    entries = obj["metadata"].get("managedFields", [])
    return {f"{one['manager']} {one['operation']}": one["fieldsV1"] for one in entries}


def test_an_apply_creates_and_owns_what_it_says(registry: Registry) -> None:
    made = apply(registry, config(a="1"))
    (entry,) = made["metadata"]["managedFields"]
    assert entry | {"time": ""} == {
        "manager": "one",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": "",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}},
    }


def test_the_same_apply_again_changes_nothing(registry: Registry) -> None:
    first = apply(registry, config(a="1"))
    assert apply(registry, config(a="1")) == first


def test_another_value_for_a_field_of_another_manager_is_a_conflict(registry: Registry) -> None:
    apply(registry, config(a="1", b="2"))
    error = refused(apply, registry, config(a="9"), "two")
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert error.status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    both = refused(apply, registry, config(a="9", b="9"), "two")
    assert both.message == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'


def test_force_takes_the_field_and_its_ownership(registry: Registry) -> None:
    apply(registry, config(a="1", b="2"))
    taken = apply(registry, config(a="9"), "two", force=True)
    assert taken["data"] == {"a": "9", "b": "2"}
    assert owners(taken) == {"one Apply": {"f:data": {"f:b": {}}}, "two Apply": {"f:data": {"f:a": {}}}}


def test_the_same_value_is_owned_together(registry: Registry) -> None:
    apply(registry, config(a="1"))
    shared = apply(registry, config(a="1"), "two")
    assert owners(shared) == {"one Apply": {"f:data": {"f:a": {}}}, "two Apply": {"f:data": {"f:a": {}}}}
    left = apply(registry, {"metadata": {"name": "c"}}, "one")
    assert (left["data"], list(owners(left))) == ({"a": "1"}, ["two Apply"])


def test_what_its_only_owner_leaves_out_goes(registry: Registry) -> None:
    apply(registry, config(a="1", b="2"))
    left = apply(registry, config(b="2"))
    assert left["data"] == {"b": "2"}


def deployment(*containers: Object) -> Object:
    return {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": list(containers)}}}}


def containers_of(obj: Object) -> list[Object]:
    return list(obj["spec"]["template"]["spec"]["containers"])


def test_lists_of_built_in_kinds_are_merged_by_their_keys(registry: Registry) -> None:
    env = [{"name": "A", "value": "1"}]
    ports = [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]
    apply(
        registry, deployment({"name": "main", "image": "x", "env": env, "args": ["a"], "ports": ports}), kind=DEPLOYMENT
    )
    second = deployment({"name": "main", "env": [{"name": "B", "value": "2"}]}, {"name": "side", "image": "y"})
    both = apply(registry, second, "two", kind=DEPLOYMENT)
    main, side = containers_of(both)
    assert (main["image"], side["name"]) == ("x", "side")
    assert [one["name"] for one in main["env"]] == ["A", "B"]
    fields = owners(both)["one Apply"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"main"}']
    assert fields["f:args"] == {}
    assert {'k:{"containerPort":80,"protocol":"TCP"}', 'k:{"containerPort":80,"protocol":"UDP"}'} == set(
        fields["f:ports"]
    )
    error = refused(apply, registry, deployment({"name": "main", "args": ["b"]}), "two", kind=DEPLOYMENT)
    assert error.message.endswith('conflict with "one": .spec.template.spec.containers[name="main"].args')
    left = apply(registry, deployment({"name": "main", "env": []}), "two", kind=DEPLOYMENT)
    assert [one["name"] for one in containers_of(left)] == ["main"]
    assert [one["name"] for one in containers_of(left)[0]["env"]] == ["A"]


def test_members_of_sets_have_owners_of_their_own(registry: Registry) -> None:
    applied = {"metadata": {"name": "c", "finalizers": ["a/b"]}}
    apply(registry, applied)
    both = apply(registry, {"metadata": {"name": "c", "finalizers": ["c/d"]}}, "two")
    assert both["metadata"]["finalizers"] == ["a/b", "c/d"]
    assert owners(both)["one Apply"] == {"f:metadata": {"f:finalizers": {'v:"a/b"': {}}}}


def test_lists_of_custom_kinds_are_one_value_unless_their_schema_says_otherwise(registry: Registry) -> None:
    experiment = {"metadata": {"name": "x"}, "spec": {"parameters": [{"name": "a"}]}}
    apply(registry, experiment, kind=EXPERIMENT)
    other = {"metadata": {"name": "x"}, "spec": {"parameters": [{"name": "b"}]}}
    error = refused(apply, registry, other, "two", kind=EXPERIMENT)
    assert error.message.endswith(": .spec.parameters")
    registry.create(CUSTOM_RESOURCE_DEFINITION, definition())
    kind = registry.kinds.find("example.com/v1", "Widget")
    assert kind is not None
    apply(registry, widget(parts=[{"name": "a"}]), kind=kind)
    both = apply(registry, widget(parts=[{"name": "b"}]), "two", kind=kind)
    assert [part["name"] for part in both["spec"]["parts"]] == ["a", "b"]


def test_an_update_takes_what_it_changes_and_frees_what_it_removes(registry: Registry) -> None:
    obj = apply(registry, config(a="1", b="2", c="3"))
    obj["data"] = {"a": "9", "b": "2", "d": "4"}
    changed = registry.update(CONFIG_MAP, obj, manager="editor")
    assert owners(changed) == {
        "one Apply": {"f:data": {"f:b": {}}},
        "editor Update": {"f:data": {"f:a": {}, "f:d": {}}},
    }
    error = refused(apply, registry, config(a="1", b="2"))
    assert 'conflict with "editor" using v1 at ' in error.message


def test_the_status_has_owners_of_its_own(registry: Registry) -> None:
    experiment = {"metadata": {"name": "x"}, "spec": {"maxTrialCount": 3}, "status": {"ignored": 1}}
    apply(registry, experiment, kind=EXPERIMENT)
    status = {"metadata": {"name": "x"}, "spec": {"maxTrialCount": 9}, "status": {"trials": 1}}
    both = apply(registry, status, "two", kind=EXPERIMENT, subresource="status")
    assert (both["spec"]["maxTrialCount"], both["status"]) == (3, {"trials": 1})
    (entry,) = [one for one in both["metadata"]["managedFields"] if one["manager"] == "two"]
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:trials": {}}})
    status["status"]["trials"] = 2
    error = refused(apply, registry, status, "three", kind=EXPERIMENT, subresource="status")
    assert 'conflict with "two" with subresource "status": .status.trials' in error.message


def test_objects_that_were_never_applied_carry_no_owners(registry: Registry) -> None:
    registry.create(CONFIG_MAP, config(a="1"), "default")
    changed = registry.patch(CONFIG_MAP, "default", "c", MERGE, {"data": {"b": "2"}})
    assert owners(changed) == {}
    applied = apply(registry, config(c="3"))
    assert set(owners(applied)) == {"one Apply", "before-first-apply Update"}
    assert "before-first-apply" in refused(apply, registry, config(a="9")).message


def test_kubectl_may_go_over_from_its_own_client_side_apply(registry: Registry) -> None:
    obj = config(a="1")
    obj["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    registry.create(CONFIG_MAP, obj, "default")
    applied = apply(registry, config(a="2"), "kubectl")
    assert applied["data"] == {"a": "2"}
    assert "kubectl-client-side-apply Update" in owners(applied)


@pytest.mark.parametrize("reset", [[], [{}]])
def test_ownership_can_be_forgotten(registry: Registry, reset: list[Object]) -> None:
    apply(registry, config(a="1"))
    operations = [{"op": "replace", "path": "/metadata/managedFields", "value": reset}]
    assert owners(registry.patch(CONFIG_MAP, "default", "c", JSON, operations)) == {}


@pytest.mark.parametrize(
    ("applied", "code"),
    [
        ({"metadata": {"name": "c", "managedFields": [{"manager": "x"}]}}, 400),
        ({"metadata": {"name": "other"}}, 400),
        ({"metadata": {"name": "c", "resourceVersion": "1"}}, 409),
        ({"metadata": {"name": "c", "uid": "1"}}, 409),
        ({"kind": "Secret", "metadata": {"name": "c"}}, 400),
        ([], 400),
    ],
)
def test_what_cannot_be_applied_is_refused(registry: Registry, applied: Any, code: int) -> None:
    apply(registry, config(a="1"))
    with pytest.raises(ApiError) as raised:
        registry.apply(CONFIG_MAP, "default", "c", applied, manager="one")
    assert raised.value.code == code


def test_a_status_cannot_be_applied_to_what_is_not_there(registry: Registry) -> None:
    assert refused(apply, registry, config(), subresource="status").code == 404


def test_a_null_is_as_good_as_left_out(registry: Registry) -> None:
    made = apply(registry, config(a="1") | {"binaryData": None})
    assert owners(made) == {"one Apply": {"f:data": {"f:a": {}}}}
    again = apply(registry, {"metadata": {"name": "c"}, "data": {"a": None, "b": "2"}})
    assert again["data"] == {"b": "2"}
