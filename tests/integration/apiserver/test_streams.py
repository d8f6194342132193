"""Watches, logs and injected faults over HTTPS."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from objects import CONFIG_MAPS, EXPERIMENTS, experiment_manifest
from waiting import wait_for

Served = Any  # the fixture's type lives in conftest, which cannot be imported


def read_lines(served: Served, url: str, count: int) -> list[dict[str, Any]]:
    with served.http.stream("GET", url) as answer:
        assert answer.status_code == 200, answer.read()
        events = []
        for line in answer.iter_lines():
            events.append(json.loads(line))
            if len(events) == count:
                break
    return events


def all_lines(served: Served, url: str) -> list[dict[str, Any]]:
    answer = served.http.get(url)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_watch_from_a_version_tells_what_came_after(served: Served) -> None:
    before = served.create_config_map("a")["metadata"]["resourceVersion"]
    served.create_config_map("b", v="1")
    served.http.delete(f"{CONFIG_MAPS}/a")
    events = read_lines(served, f"{CONFIG_MAPS}?watch=true&resourceVersion={before}", 2)
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert versions[0] > int(before)


@pytest.mark.parametrize("version", ["", "0"])
def test_a_watch_without_a_version_starts_with_what_exists(served: Served, version: str) -> None:
    served.create_config_map("a")
    (event,) = all_lines(served, f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}")
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


def test_a_watch_sees_objects_enter_and_leave_its_selection(served: Served) -> None:
    start = served.create_config_map("a")["metadata"]["resourceVersion"]
    for labels in ({"l": "x"}, {"l": "x", "m": "1"}, {"l": "y"}):
        served.http.patch(
            f"{CONFIG_MAPS}/a",
            content=json.dumps({"metadata": {"labels": labels}}),
            headers={"content-type": "application/merge-patch+json"},
        )
    url = f"{CONFIG_MAPS}?watch=1&resourceVersion={start}&labelSelector=l%3Dx&timeoutSeconds=1"
    events = all_lines(served, url)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[2]["object"]["metadata"]["labels"]["l"] == "x"


def test_a_watch_ends_at_its_timeout_with_a_bookmark(served: Served) -> None:
    version = served.create_config_map("a")["metadata"]["resourceVersion"]
    served.http.post(EXPERIMENTS, json=experiment_manifest("x"))
    url = f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={version}"
    started = time.monotonic()
    (bookmark,) = all_lines(served, url)
    assert 0.9 < time.monotonic() - started < 5
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "ConfigMap"
    assert int(bookmark["object"]["metadata"]["resourceVersion"]) > int(version)


def test_initial_events_end_with_an_annotated_bookmark(served: Served) -> None:
    served.create_config_map("a")
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    added, bookmark = read_lines(served, f"{CONFIG_MAPS}?{query}", 2)
    assert (added["type"], bookmark["type"]) == ("ADDED", "BOOKMARK")
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_from_a_forgotten_version_is_told_410_in_the_stream(served: Served) -> None:
    old = served.create_config_map("a")["metadata"]["resourceVersion"]
    served.create_config_map("b")
    served.thread.call(served.registry.store.compact)
    (event,) = all_lines(served, f"{CONFIG_MAPS}?watch=1&resourceVersion={old}")
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith("too old resource version")


def test_stopping_is_quick_and_ends_open_watches_cleanly(serve: Any, tmp_path: Path) -> None:
    server = serve(tmp_path)
    started, ended = threading.Event(), threading.Event()

    def follow() -> None:
        with server.http.stream("GET", f"{CONFIG_MAPS}?watch=1") as answer:
            started.set()
            list(answer.iter_lines())
            ended.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert started.wait(20)
    before = time.monotonic()
    server.thread.run(server.server.stop())
    assert time.monotonic() - before < 2
    assert ended.wait(20)
    reader.join()
    server.stop()


def test_a_client_that_leaves_closes_its_watch(served: Served) -> None:
    with served.http.stream("GET", f"{CONFIG_MAPS}?watch=1"):
        wait_for(lambda: len(served.api.streams) == 1, seconds=20)
    wait_for(lambda: len(served.api.streams) == 0, seconds=20)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=2", "two\nthree\n"),
        ("?limitBytes=3", "one"),
        ("?follow=true", "one\ntwo\n"),
    ],
)
def test_logs_of_a_pod(served: Served, query: str, text: str) -> None:
    answer = served.http.get(f"/api/v1/namespaces/default/pods/p/log{query}")
    assert (answer.status_code, answer.text) == (200, text)
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("follow", ["", "&follow=true"])
def test_a_refused_log_is_a_status_also_when_following(served: Served, follow: str) -> None:
    answer = served.http.get(f"/api/v1/namespaces/default/pods/p/log?container=waiting{follow}")
    assert answer.status_code == 400
    assert answer.json()["message"] == 'container "waiting" in pod "p" is waiting to start: ContainerCreating'


def test_an_injected_status_comes_as_often_as_asked(served: Served) -> None:
    served.faults.add(r"/experiments", method="GET", code=429, retry_after=7, times=2)
    for _ in range(2):
        answer = served.http.get(EXPERIMENTS)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["reason"] == "TooManyRequests"
    assert served.http.get(EXPERIMENTS).status_code == 200


def test_faults_hit_only_what_they_name_and_can_be_cleared(served: Served) -> None:
    served.faults.add(r"/experiments$", method="POST", code=500)
    assert served.http.get(EXPERIMENTS).status_code == 200
    assert served.http.get(CONFIG_MAPS).status_code == 200
    served.faults.clear()
    assert served.http.post(EXPERIMENTS, json=experiment_manifest("x")).status_code == 201


def test_an_injected_delay_only_delays(served: Served) -> None:
    served.faults.add(delay_seconds=0.2)
    started = time.monotonic()
    assert served.http.get(EXPERIMENTS).status_code == 200
    assert time.monotonic() - started >= 0.2


def test_a_watch_can_be_ended_expired_or_broken_after_some_events(served: Served) -> None:
    for name in ("a", "b", "c"):
        served.create_config_map(name)
    url = f"{CONFIG_MAPS}?watch=1"
    served.faults.add(cut_watch="end", cut_after_events=2)
    assert [event["object"]["metadata"]["name"] for event in all_lines(served, url)] == ["a", "b"]
    served.faults.add(cut_watch="expire", cut_after_events=1)
    assert [event["type"] for event in all_lines(served, url)] == ["ADDED", "ERROR"]
    served.faults.add(cut_watch="abort", cut_after_events=1)
    with pytest.raises(httpx.RemoteProtocolError):
        served.http.get(url)
    served.faults.add(cut_watch="end")
    assert served.http.get(CONFIG_MAPS).status_code == 200
    assert all_lines(served, url) == []


def test_requests_are_counted_by_verb_and_resource(served: Served) -> None:
    served.http.post(EXPERIMENTS, json=experiment_manifest("x"))
    served.http.get(EXPERIMENTS)
    served.http.get(f"{EXPERIMENTS}/x")
    served.http.get(f"{EXPERIMENTS}?watch=1&timeoutSeconds=1")
    resource = "experiments.kubeflow.org"
    assert served.api.requests == {(verb, resource): 1 for verb in ("create", "list", "get", "watch")}
