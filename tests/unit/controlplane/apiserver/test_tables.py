"""What ``kubectl get`` prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.built_in_columns import BUILT_IN_COLUMNS
from airflow_llmtune.controlplane.apiserver.columns import Column, human_duration
from airflow_llmtune.controlplane.apiserver.kinds import (
    CUSTOM_RESOURCE_DEFINITION,
    EVENT,
    JOB,
    JOB_SET,
    KINDS,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PYTORCH_JOB,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SUGGESTION,
    TRAIN_JOB,
    TRIAL,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.printer_columns import printer_columns
from airflow_llmtune.controlplane.apiserver.tables import table

NOW = datetime(2026, 11, 22, 9, 10, tzinfo=UTC)
CREATED = {"name": "x", "creationTimestamp": "2026-11-22T09:00:00Z"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
    ],
)
def test_ages_are_as_short_as_kubernetes_writes_them(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def state(**one: Any) -> dict[str, Any]:
    return {"name": "c", "state": one}


TERMINATED = {"reason": "Error", "exitCode": 1}


@pytest.mark.parametrize(
    ("kind", "obj", "cells"),
    [
        (POD, {"spec": {"containers": [{}]}, "status": {"phase": "Pending"}}, ["0/1", "Pending", 0]),
        (
            POD,
            {
                "spec": {"containers": [{}, {}]},
                "status": {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 2, "state": {}}]},
            },
            ["1/2", "Running", 2],
        ),
        (
            POD,
            {
                "spec": {"containers": [{}]},
                "status": {"containerStatuses": [state(waiting={"reason": "ErrImagePull"})]},
            },
            ["0/1", "ErrImagePull", 0],
        ),
        (
            POD,
            {"spec": {"containers": [{}]}, "status": {"containerStatuses": [state(terminated=TERMINATED)]}},
            ["0/1", "Error", 0],
        ),
        (
            POD,
            {"spec": {"containers": [{}]}, "status": {"containerStatuses": [state(terminated={"exitCode": 7})]}},
            ["0/1", "ExitCode:7", 0],
        ),
        (
            POD,
            {
                "spec": {"containers": [{}], "initContainers": [{}, {}]},
                "status": {
                    "phase": "Pending",
                    "initContainerStatuses": [state(terminated={"exitCode": 0}), state(running={})],
                },
            },
            ["0/1", "Init:1/2", 0],
        ),
        (
            POD,
            {
                "spec": {"containers": [{}], "initContainers": [{}]},
                "status": {"initContainerStatuses": [state(terminated=TERMINATED)]},
            },
            ["0/1", "Init:Error", 0],
        ),
        (
            POD,
            {"metadata": {**CREATED, "deletionTimestamp": "t"}, "spec": {"containers": [{}]}},
            ["0/1", "Terminating", 0],
        ),
        (JOB, {"status": {"startTime": "2026-11-22T09:08:00Z"}}, ["Running", "0/1", "2m"]),
        (
            JOB,
            {
                "spec": {"completions": 2},
                "status": {
                    "succeeded": 2,
                    "startTime": "2026-11-22T09:08:00Z",
                    "completionTime": "2026-11-22T09:08:09Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["Complete", "2/2", "9s"],
        ),
        (TRIAL, {"status": {"conditions": [{"type": "Created", "status": "True"}]}}, ["Created", "True"]),
        (TRIAL, {}, ["", ""]),
        (SUGGESTION, {"spec": {"requests": 3}, "status": {"suggestionCount": 2}}, ["", "", 3, 2]),
        (PYTORCH_JOB, {"status": {"conditions": [{"type": "Running", "status": "True"}]}}, ["Running"]),
        (TRAIN_JOB, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, ["Complete"]),
        (
            JOB_SET,
            {
                "spec": {"suspend": False},
                "status": {"restarts": 1, "conditions": [{"type": "Completed", "status": "True"}]},
            },
            ["", 1, "True", False],
        ),
        (ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "reader"}}, ["Role/reader"]),
        (SERVICE, {"spec": {"ports": [{"port": 80}]}}, ["ClusterIP", "None", "<none>", "80/TCP"]),
        (
            PERSISTENT_VOLUME,
            {
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": "default", "name": "c"},
                },
                "status": {"phase": "Bound"},
            },
            ["1Gi", "RWO,ROX", "Retain", "Bound", "default/c", "", "<unset>", ""],
        ),
        (
            PERSISTENT_VOLUME_CLAIM,
            {"metadata": {**CREATED, "deletionTimestamp": "t"}, "spec": {"volumeName": "v"}},
            ["Terminating", "v", "", "", "", "<unset>"],
        ),
    ],
)
def test_cells_between_name_and_age(kind: Kind, obj: dict[str, Any], cells: list[Any]) -> None:
    columns = BUILT_IN_COLUMNS[kind]
    printed = table(columns, [{"metadata": CREATED} | obj], {}, "None", NOW)
    (row,) = printed["rows"]
    assert row["object"] is None
    shown = [cell for cell, column in zip(row["cells"], columns, strict=True) if not column.priority]
    assert shown == ["x", *cells, "10m"]


@pytest.mark.parametrize(
    ("kind", "obj", "cells"),
    [
        (
            NODE,
            {
                "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}},
                "spec": {"unschedulable": True},
                "metadata": {**CREATED, "labels": {"node-role.kubernetes.io/worker": ""}},
            },
            ["x", "Ready,SchedulingDisabled", "worker", "10m", "v1"],
        ),
        (NODE, {}, ["x", "Unknown", "<none>", "10m", ""]),
        (ROLE, {}, ["x", "2026-11-22T09:00:00Z"]),
        (CUSTOM_RESOURCE_DEFINITION, {}, ["x", "2026-11-22T09:00:00Z"]),
    ],
)
def test_cells_of_kinds_whose_age_is_not_last(kind: Kind, obj: dict[str, Any], cells: list[Any]) -> None:
    printed = table(BUILT_IN_COLUMNS[kind], [{"metadata": CREATED} | obj], {}, "None", NOW)
    assert printed["rows"][0]["cells"] == cells


def test_an_event_is_printed_with_what_it_is_about() -> None:
    event = {
        "metadata": CREATED,
        "lastTimestamp": "2026-11-22T09:09:00Z",
        "type": "Normal",
        "reason": "Started",
        "message": "m",
        "involvedObject": {"kind": "Pod", "name": "p"},
    }
    assert table(BUILT_IN_COLUMNS[EVENT], [event], {}, "None", NOW)["rows"][0]["cells"] == [
        "60s",
        "Normal",
        "Started",
        "pod/p",
        "m",
    ]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_has_a_table_for_its_barest_object(kind: Kind) -> None:
    bare = {"metadata": CREATED, "involvedObject": {}}
    printed = table(BUILT_IN_COLUMNS[kind], [bare], {"resourceVersion": "1"}, "Object", NOW)
    assert len(printed["rows"][0]["cells"]) == len(printed["columnDefinitions"])
    assert printed["rows"][0]["object"] is bare


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (BUILT_IN_COLUMNS[SUGGESTION], {"status": {"conditions": {"type": "x"}}}),
        (BUILT_IN_COLUMNS[TRAIN_JOB], {"status": {"conditions": ["x"]}}),
        (printer_columns([{"name": "C", "type": "integer", "jsonPath": ".spec"}]), {"spec": "s"}),
        (printer_columns([{"name": "C", "type": "date", "jsonPath": ".spec"}]), {"spec": [1]}),
    ],
)
def test_an_odd_object_does_not_hide_the_others(columns: tuple[Column, ...], fields: dict[str, Any]) -> None:
    objects = [{"metadata": CREATED, **fields}, {"metadata": CREATED}]
    odd, plain = (row["cells"] for row in table(columns, objects, {}, "None", NOW)["rows"])
    assert "<invalid>" in odd
    assert (odd[0], plain[0], "<invalid>" in plain) == ("x", "x", False)
