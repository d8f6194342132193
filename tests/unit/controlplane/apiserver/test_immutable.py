"""Fields of built-in kinds that stay as they were made."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from registries import refused

Object = dict[str, Any]

CONTAINER = {"name": "c", "image": "a", "command": ["x"]}


def made(registry: Registry, kind: Kind, **fields: Any) -> Object:
    return registry.create(kind, {"metadata": {"name": "x"}, **fields}, "default")


@pytest.mark.parametrize(
    ("kind", "fields", "change", "message"),
    [
        (
            POD,
            {"spec": {"containers": [CONTAINER]}},
            {"spec": {"containers": [{**CONTAINER, "command": ["y"]}]}},
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        ),
        (
            POD,
            {"spec": {"containers": [CONTAINER], "nodeName": "n"}},
            {"spec": {"nodeName": "m"}},
            "spec: Forbidden: pod updates",
        ),
        (
            PERSISTENT_VOLUME_CLAIM,
            {"spec": {"accessModes": ["ReadWriteOnce"]}},
            {"spec": {"accessModes": ["ReadOnlyMany"]}},
            "spec: Forbidden: spec is immutable after creation",
        ),
        (
            SERVICE,
            {"spec": {"clusterIP": "None"}},
            {"spec": {"clusterIP": "10.0.0.1"}},
            'spec.clusterIP: Invalid value: "10.0.0.1": field is immutable',
        ),
        (SECRET, {"type": "a/b"}, {"type": "c/d"}, 'type: Invalid value: "c/d": field is immutable'),
        (
            SECRET,
            {"immutable": True, "data": {"a": "YQ=="}},
            {"data": {"a": "Yg=="}},
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        (CONFIG_MAP, {"immutable": True}, {"immutable": False}, "immutable: Forbidden: field is immutable"),
        (
            ROLE_BINDING,
            {"roleRef": {"kind": "Role", "name": "a"}},
            {"roleRef": {"name": "b"}},
            "cannot change roleRef",
        ),
        (
            DEPLOYMENT,
            {"spec": {"selector": {"matchLabels": {"a": "b"}}}},
            {"spec": {"selector": {"matchLabels": {"a": "c"}}}},
            "spec.selector: Invalid value",
        ),
    ],
)
def test_a_change_of_what_is_fixed_is_invalid(
    registry: Registry, kind: Kind, fields: Object, change: Object, message: str
) -> None:
    made(registry, kind, **fields)
    error = refused(registry.patch, kind, "default", "x", MERGE, change)
    assert (error.code, error.reason) == (422, "Invalid")
    assert message in error.message


@pytest.mark.parametrize(
    ("kind", "fields", "change"),
    [
        (POD, {"spec": {"containers": [CONTAINER]}}, {"spec": {"containers": [{**CONTAINER, "image": "b"}]}}),
        (POD, {"spec": {"containers": [CONTAINER]}}, {"spec": {"nodeName": "n", "activeDeadlineSeconds": 5}}),
        (
            PERSISTENT_VOLUME_CLAIM,
            {"spec": {"accessModes": ["ReadWriteOnce"]}},
            {"spec": {"volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}}},
        ),
        (SERVICE, {"spec": {"clusterIP": "None"}}, {"spec": {"clusterIP": "None", "ports": []}}),
        (SECRET, {"type": "a/b"}, {"data": {"a": "YQ=="}, "immutable": True}),
        (CONFIG_MAP, {"immutable": True}, {"metadata": {"labels": {"a": "b"}}}),
    ],
)
def test_all_else_may_change(registry: Registry, kind: Kind, fields: Object, change: Object) -> None:
    made(registry, kind, **fields)
    registry.patch(kind, "default", "x", MERGE, change)


def test_a_replacement_may_leave_out_what_the_server_filled_in(registry: Registry) -> None:
    pod = made(registry, POD, spec={"containers": [{**CONTAINER, "resources": {}}], "schedulerName": "s"})
    pod["spec"] = {"containers": [CONTAINER]}
    kept = registry.update(POD, pod)["spec"]
    assert (kept["schedulerName"], kept["containers"][0]["resources"]) == ("s", {})
    service = made(registry, SERVICE, spec={"clusterIP": "10.0.0.1"})
    service["spec"] = {"ports": []}
    assert registry.update(SERVICE, service)["spec"]["clusterIP"] == "10.0.0.1"
