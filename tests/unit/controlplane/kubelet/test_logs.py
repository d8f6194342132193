"""What can be read of a container's output, and how long."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    POD,
)
from airflow_llmtune.controlplane.apiserver.logs import LogOptions, read_options
from airflow_llmtune.controlplane.kubelet.logs import LogReader, read
from airflow_llmtune.controlplane.kubelet.pod_logs import container_name, log_number
from airflow_llmtune.controlplane.kubelet.runtime.log_file import LogFile
from nodes import Node
from objects import Object
from waiting import eventually


async def test_both_outputs_are_logged_and_stay_until_the_pod_is_deleted(node: Node, tmp_path: Path) -> None:
    node.create("echo one; echo two >&2; echo three")
    await node.end()
    assert await node.log() == "one\ntwo\nthree\n"
    assert await node.log(tail_lines=2) == "two\nthree\n"
    assert await node.log(tail_lines=0) == ""
    assert await node.log(limit_bytes=5) == "one\nt"
    assert await node.log(limit_bytes=5, tail_lines=1) == "three"
    node.registry.delete(POD, "default", "pod")
    await eventually(lambda: not any((tmp_path / "pods").iterdir()))


async def test_a_log_can_be_followed_while_it_is_written(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    node.create(f"echo first; until [ -e {gate} ]; do sleep 0.02; done; echo last")
    await node.running()
    seen = b""
    async for added in node.kubelet.open_log("default", "pod", "main", LogOptions(follow=True)):
        seen += added
        if seen == b"first\n":
            gate.touch()
    assert seen == b"first\nlast\n"


async def test_the_log_of_a_container_the_pod_does_not_have_is_refused(node: Node) -> None:
    node.create("true")
    for name in ("other", "../main"):
        with pytest.raises(ApiError, match=f"container {name} is not valid for pod pod"):
            await node.log(name)
    await node.end()


async def test_each_line_has_the_time_at_which_it_came(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    before = datetime.now(UTC)
    node.create(f"echo first; until [ -e {gate} ]; do sleep 0.02; done; echo second; printf third")
    await node.running()
    await eventually(lambda: next((tmp_path / "pods").glob("*/logs/main/0.log")).read_text())
    between = datetime.now(UTC)
    gate.touch()
    await node.end()
    lines = [line.split(" ") for line in (await node.log(timestamps=True)).splitlines()]
    assert [text for _, text in lines] == ["first", "second", "third"]
    first, second, third = (datetime.fromisoformat(moment) for moment, _ in lines)
    assert before < first < between < second <= third
    assert await node.log(since=between) == "second\nthird"
    assert await node.log(since=datetime.now(UTC)) == ""
    assert (await node.log(timestamps=True, tail_lines=1)).endswith("Z third")


async def test_a_followed_log_has_times_too_and_begins_where_it_is_told(node: Node) -> None:
    node.create("echo old; echo new; sleep 0.2; printf ha; sleep 0.2; echo lf")
    await node.running()
    await asyncio.sleep(0.1)
    shown = await node.log(follow=True, timestamps=True, tail_lines=1)
    assert re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", "T", shown) == "T new\nT half\n"


async def test_following_ends_at_the_limit(node: Node) -> None:
    node.create("echo 12345; sleep 60")
    await node.running()
    assert await node.log(follow=True, limit_bytes=3) == "123"


@pytest.mark.parametrize(
    ("pod", "wanted", "message"),
    [
        ({}, "", "a container name must be specified for pod p, choose one of: [a b]"),
        ({}, "c", "container c is not valid for pod p"),
        (
            {"initContainers": [{"name": "i"}, {"name": "j"}]},
            "",
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i j]",
        ),
    ],
)
def test_the_container_must_be_clear(pod: Object, wanted: str, message: str) -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}], **pod}
    with pytest.raises(ApiError) as refused:
        container_name({"metadata": {"name": "p"}, "spec": spec}, wanted)
    assert (refused.value.code, refused.value.message) == (400, message)


ENDED: Object = {"terminated": {"exitCode": 1}}
LOOPS: Object = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("status", "current", "previous"),
    [
        ({"state": {"running": {}}}, 0, 'previous terminated container "a" in pod "p" not found'),
        ({"state": {"running": {}}, "lastState": ENDED, "restartCount": 3}, 3, 2),
        ({"state": LOOPS, "lastState": ENDED, "restartCount": 3}, 3, 3),
        ({"state": ENDED}, 0, 'previous terminated container "a" in pod "p" not found'),
        (
            {"state": {"waiting": {"reason": "PodInitializing"}}},
            'container "a" in pod "p" is waiting to start: PodInitializing',
            'previous terminated container "a" in pod "p" not found',
        ),
        (
            {"state": {"waiting": {"reason": "ErrImagePull"}}},
            'container "a" in pod "p" is waiting to start: image can\'t be pulled',
            'previous terminated container "a" in pod "p" not found',
        ),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}},
            'container "a" in pod "p" is waiting to start: trying and failing to pull image',
            'previous terminated container "a" in pod "p" not found',
        ),
        (
            {},
            'container "a" in pod "p" is waiting to start: ContainerCreating',
            'previous terminated container "a" in pod "p" not found',
        ),
    ],
)
def test_each_start_has_a_log_and_what_has_not_started_has_none(
    status: Object, current: int | str, previous: int | str
) -> None:
    pod = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "a", **status}]}}

    def answer(*, previous: bool) -> int | str:
        try:
            return log_number(pod, "a", previous=previous)
        except ApiError as error:
            return error.message

    assert (answer(previous=False), answer(previous=True)) == (current, previous)


async def test_a_pod_without_a_node_has_an_empty_log(node: Node) -> None:
    node.create("true", nodeName="")
    assert await node.log() == ""


def test_a_log_is_bounded_and_keeps_its_newest_part(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path, max_bytes=100)
    for number in range(50):
        log.write(b"line %03d\n" % number)
    log.close()
    assert sum(file.stat().st_size for file in tmp_path.glob("*.log*")) <= 200
    lines = read(path, LogOptions()).decode().splitlines()
    assert lines[-1] == "line 049"
    assert 11 <= len(lines) <= 22
    assert read(path, LogOptions(tail_lines=2)) == b"line 048\nline 049\n"
    assert read(path, LogOptions(timestamps=True)).count(b"Z line ") == len(lines)


def test_a_carriage_return_does_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path)
    log.write(b"10%\r20%\r30%\n\ntail")
    log.close()
    assert [line.partition(b"Z ")[2] for line in read(path, LogOptions(timestamps=True)).split(b"\n")] == [
        b"10%\r20%\r30%",
        b"",
        b"tail",
    ]


@pytest.mark.parametrize("lines_per_look", [1, 3])
def test_a_follower_goes_on_over_a_rotation_and_over_two(tmp_path: Path, lines_per_look: int) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path, max_bytes=20)
    reader = LogReader(path, LogOptions(follow=True))
    seen = reader.read()
    for number in range(30):
        log.write(b"line %03d\n" % number)
        if number % lines_per_look == 0:
            seen += reader.read()
    seen += reader.read()
    log.close()
    reader.close()
    assert seen.decode().split() == [word for number in range(30) for word in ("line", f"{number:03d}")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"tailLines": "-1"}, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ({"limitBytes": "0"}, "limitBytes: Invalid value: 0: must be greater than 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            {"sinceSeconds": "1", "sinceTime": "2026-11-22T09:00:00Z"},
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ],
)
def test_options_without_sense_are_refused(query: dict[str, str], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_options(query, "p", datetime.now(UTC))
    assert refused.value.code == 422
    assert refused.value.message.startswith('PodLogOptions "p" is invalid: ')
    assert message in refused.value.message


def test_options_are_read_from_the_query() -> None:
    now = datetime(2026, 11, 22, 9, 0, 10, tzinfo=UTC)
    query = {"follow": "true", "timestamps": "true", "sinceSeconds": "10", "tailLines": "3", "limitBytes": "9"}
    since = datetime(2026, 11, 22, 9, tzinfo=UTC)
    expected = LogOptions(follow=True, timestamps=True, since=since, tail_lines=3, limit_bytes=9)
    assert read_options(query, "p", now) == expected
    assert read_options({"sinceTime": "2026-11-22T09:00:00Z"}, "p", now) == LogOptions(since=since)
    with pytest.raises(ApiError, match="cannot parse it"):
        read_options({"sinceTime": "yesterday"}, "p", now)
