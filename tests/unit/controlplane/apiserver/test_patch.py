"""The patch formats; the merge patch table is RFC 7386's own, as far as objects go."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, POD
from airflow_llmtune.controlplane.apiserver.patch import (
    JSON,
    MERGE,
    STRATEGIC,
    accepted_types,
    apply_patch,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "text"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merge_patch(target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == before


def test_json_patch_applies_all_operations() -> None:
    operations = [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "replace", "path": "/a", "value": 2},
        {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "move", "from": "/c~1d", "path": "/e"},
        {"op": "remove", "path": "/list/0"},
    ]
    target = {"a": 1, "list": [1, 2], "c/d": 5}
    assert json_patch(target, operations) == {"a": 2, "list": [2, 3], "b": 2, "e": 5}
    assert target == {"a": 1, "list": [1, 2], "c/d": 5}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "remove", "path": "/absent"}],
        [{"op": "replace", "path": "/absent", "value": 1}],
        [{"op": "add", "path": "/list/9", "value": 1}],
        [{"op": "add", "path": "/a/b/c", "value": 1}],
    ],
)
def test_a_json_patch_that_does_not_fit_is_422(operations: list[dict[str, Any]]) -> None:
    with pytest.raises(ApiError) as raised:
        json_patch({"a": 1, "list": []}, operations)
    assert (raised.value.code, raised.value.reason) == (422, "Invalid")
    assert raised.value.message == "the server rejected our request due to an error in our request"


@pytest.mark.parametrize(
    "operations", [{"a": 1}, [{"op": "jump", "path": "/a"}], [{"path": "/a"}], [{"op": "add", "path": "/a"}], [1]]
)
def test_what_is_no_json_patch_is_a_bad_request(operations: Any) -> None:
    with pytest.raises(ApiError) as raised:
        json_patch({"a": 1}, operations)
    assert raised.value.code == 400


STRATEGIC_CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("maps are merged", {"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
    ("null removes", {"a": 1, "b": 2}, {"a": None}, {"b": 2}),
    ("other lists are replaced", {"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
    (
        "containers merge by name",
        {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]},
        {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}]},
        {
            "containers": [
                {
                    "name": "a",
                    "image": "1",
                    "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                },
                {"name": "b"},
                {"name": "c", "image": "3"},
            ]
        },
    ),
    (
        "an element can be deleted",
        {"volumes": [{"name": "a"}, {"name": "b"}]},
        {"volumes": [{"$patch": "delete", "name": "a"}]},
        {"volumes": [{"name": "b"}]},
    ),
    (
        "a deletion of what is not there changes nothing",
        {"volumes": [{"name": "b"}]},
        {"volumes": [{"$patch": "delete", "name": "a"}]},
        {"volumes": [{"name": "b"}]},
    ),
    (
        "a list can be replaced",
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"containers": [{"name": "c"}, {"$patch": "replace"}]},
        {"containers": [{"name": "c"}]},
    ),
    ("a map can be replaced", {"a": {"x": 1}}, {"a": {"$patch": "replace", "y": 2}}, {"a": {"y": 2}}),
    ("a map can be emptied", {"a": {"x": 1}}, {"a": {"$patch": "delete"}}, {"a": {}}),
    (
        "conditions merge by type",
        {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]},
        {"conditions": [{"type": "Ready", "status": "True"}]},
        {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]},
    ),
    (
        "ports merge by container port",
        {"ports": [{"containerPort": 80}]},
        {"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]},
        {"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]},
    ),
    (
        "a service's ports merge by port",
        {"ports": [{"port": 80}]},
        {"ports": [{"port": 80, "name": "web"}]},
        {"ports": [{"port": 80, "name": "web"}]},
    ),
    (
        "mounts merge by path",
        {"volumeMounts": [{"mountPath": "/a", "name": "v"}]},
        {"volumeMounts": [{"mountPath": "/b", "name": "v"}]},
        {"volumeMounts": [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]},
    ),
    ("finalizers are a set", {"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, {"finalizers": ["a", "b"]}),
    (
        "primitives can be deleted",
        {"finalizers": ["a", "b"]},
        {"$deleteFromPrimitiveList/finalizers": ["a"]},
        {"finalizers": ["b"]},
    ),
    (
        "the order can be set",
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]},
        {"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]},
    ),
    (
        "what the order does not name follows its neighbour",
        {"containers": [{"name": "a"}, {"name": "x"}, {"name": "b"}]},
        {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
        {"containers": [{"name": "b"}, {"name": "a"}, {"name": "x"}]},
    ),
    (
        "only retained keys stay",
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}},
        {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        {"strategy": {"type": "Recreate"}},
    ),
    ("a missing map is made", {}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
    ("a missing list is made", {}, {"env": [{"name": "X"}]}, {"env": [{"name": "X"}]}),
]


def test_a_json_patch_does_not_grow_without_bounds() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{index}"} for index in range(60)]
    with pytest.raises(ApiError) as raised:
        json_patch({"a": {"text": "x" * 100}}, doubling)
    assert "unable to copy more than" in raised.value.status["details"]["causes"][0]["message"]
    with pytest.raises(ApiError) as raised:
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 1}] * 10_001)
    assert raised.value.code == 413


@pytest.mark.parametrize(
    ("target", "patch", "result"), [case[1:] for case in STRATEGIC_CASES], ids=[case[0] for case in STRATEGIC_CASES]
)
def test_strategic_merge_patch(target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    before = copy.deepcopy(target)
    assert strategic_merge_patch(target, patch) == result
    assert target == before


def test_an_element_without_its_merge_key_is_a_bad_request() -> None:
    with pytest.raises(ApiError, match="does not contain declared merge key: name") as raised:
        strategic_merge_patch({"containers": [{"name": "a"}]}, {"containers": [{"image": "x"}]})
    assert raised.value.code == 400


@pytest.mark.parametrize(
    "patch",
    [
        {"$setElementOrder/containers": 5, "containers": [{"name": "a"}]},
        {"$setElementOrder/finalizers": [{}], "finalizers": ["a/b"]},
        {"$retainKeys": 5},
        {"$deleteFromPrimitiveList/finalizers": 5, "finalizers": ["a/b"]},
    ],
)
def test_a_directive_of_the_wrong_type_is_a_bad_request(patch: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as raised:
        apply_patch({"finalizers": ["c/d"], "containers": [{"name": "a"}]}, STRATEGIC, patch)
    assert raised.value.code == 400


def test_custom_resources_take_no_strategic_patch() -> None:
    assert STRATEGIC in accepted_types(POD)
    assert STRATEGIC not in accepted_types(EXPERIMENT)


def test_each_format_merges_in_its_way() -> None:
    target = {"spec": {"containers": [{"name": "a"}]}}
    patch = {"spec": {"containers": [{"name": "b"}]}}
    assert apply_patch(target, STRATEGIC, patch)["spec"]["containers"] == [{"name": "a"}, {"name": "b"}]
    assert apply_patch(target, MERGE, patch)["spec"]["containers"] == [{"name": "b"}]
    removed = apply_patch(target, JSON, [{"op": "remove", "path": "/spec"}])
    assert removed == {}


def test_a_merge_patch_must_be_an_object() -> None:
    with pytest.raises(ApiError) as raised:
        apply_patch({}, MERGE, [1])
    assert raised.value.code == 400
