"""
Many tasks wait in one real triggerer, and the API server counts what that costs.

A deferred task costs Airflow itself most of a second of CPU, however it waits: hence 50 of them here. ``WAITS`` is
their number; ``make test-waiting`` takes 500 and prints what was measured.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import pytest

from many_waits import DAG_ID, many_waits
from objects import EXPERIMENTS

WAITS = int(os.environ.get("WAITS", "50"))
CUTS = 3
IDLE_SECONDS = 10.0 if WAITS < 500 else 60.0
# What a triggerer may ask in a minute in which nothing happens, whatever the number of waits.
PER_MINUTE = 3
WATCHED = ("experiments.kubeflow.org", "trials.kubeflow.org", "events")
# A list and a watch of each kind. The list of the Experiments comes in pages, the first of them small.
NEW_WATCHES = 2 * len(WATCHED) + WAITS // 100
# What Airflow logs, with the index of the task.
TRIGGER_STARTED = r"trigger \S+/tune/(\d+)/\d+ \(ID \d+\) starting"
TRIGGER_FIRED = r"Trigger fired event.*?/tune/(\d+)/\d+ \(ID"
# What the two workers of one task ask.
OF_A_TASK = {
    ("list", "experiments.kubeflow.org"): 1,
    ("create", "experiments.kubeflow.org"): 1,
    ("get", "experiments.kubeflow.org"): 1,
    ("patch", "experiments.kubeflow.org"): 1,
    ("list", "trials.kubeflow.org"): 1,
}

pytestmark = [pytest.mark.system, pytest.mark.timeout(600 + 6 * WAITS)]


@dataclass
class Seen:
    """What was measured of the triggerer while all tasks waited, and of the whole run."""

    workers_while_deferring: int = 0
    workers_while_waiting: int = -1
    open_watches: int = 0
    connections: int = 0
    megabytes: float = 0.0
    """Of all its processes; what they share counts for each."""
    cpu_seconds_while_idle: float = 0.0
    requests_while_idle: dict[str, int] = field(default_factory=dict)
    requests_of_cuts: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    """Of the triggerer, in the whole run."""
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with many_waits(tmp_path_factory.mktemp("waits")) as site:
        yield site


@pytest.fixture(scope="module")
def seen(site):
    """Run the DAG: all tasks wait at once, all watches break some times, then all Experiments may finish."""
    seen, clock = Seen(), Stopwatch()
    site.start(WAITS)
    wait_until_all_wait(site, seen)
    clock.lap("defer")
    look_around(site, seen)
    stay_idle(site, seen)
    cut_all_watches(site, seen)
    clock.lap("wait")
    release(site)
    # The watches are there until the last wait has its event, and no longer.
    site.until(lambda: site.plane.open_streams == 0, seconds=120 + 2 * WAITS)
    clock.lap("fire")
    site.until(lambda: site.run_state() in {"success", "failed"}, seconds=120 + 4 * WAITS)
    clock.lap("finish")
    asked = Counter({request: count for request, count in site.plane.requests.items() if request[1] in WATCHED})
    seen.requests = named(asked - Counter({request: WAITS * count for request, count in OF_A_TASK.items()}))
    seen.seconds = clock.laps
    sys.stdout.write(f"figures: {json.dumps({'waits': WAITS, **asdict(seen)})}\n")
    return seen


class Stopwatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 1), now


def wait_until_all_wait(site, seen: Seen) -> None:
    """Until each task is deferred, its trigger runs, and Airflow's scheduler knows that its worker is done."""

    def all_wait() -> bool:
        seen.workers_while_deferring = max(seen.workers_while_deferring, len(site.workers()))
        assert site.count("failed") == 0
        if site.count("deferred") < WAITS or site.workers_heard() < WAITS:
            return False
        return sorted(indexes_in(site, TRIGGER_STARTED)) == list(range(WAITS))

    site.until(all_wait, seconds=180 + 4 * WAITS)
    site.until(lambda: site.plane.open_streams >= len(WATCHED), seconds=30)


def indexes_in(site, event: str) -> list[int]:
    return [int(index) for index in re.findall(event, site.trigger_log())]


def look_around(site, seen: Seen) -> None:
    seen.workers_while_waiting = len(site.workers())
    seen.open_watches = site.plane.open_streams
    seen.connections = site.connections()
    seen.megabytes = round(sum(process.memory_info().rss for process in site.triggerer()) / 2**20, 1)


def stay_idle(site, seen: Seen) -> None:
    requests, cpu = site.plane.requests, cpu_seconds(site.triggerer())
    time.sleep(IDLE_SECONDS)
    seen.requests_while_idle = named(site.plane.requests - requests)
    seen.cpu_seconds_while_idle = round(cpu_seconds(site.triggerer()) - cpu, 2)


def cut_all_watches(site, seen: Seen) -> None:
    """End all watches some times; each time until there is a new one of each kind."""
    begin = site.plane.requests
    for _ in range(CUTS):
        wanted = {kind: site.plane.requests["watch", kind] + 1 for kind in WATCHED}
        site.plane.drop_watches()
        site.until(lambda wanted=wanted: all(site.plane.requests["watch", kind] >= wanted[kind] for kind in wanted), 60)
    seen.requests_of_cuts = named(site.plane.requests - begin)


def release(site) -> None:
    """Let the Job of each trial run."""
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    merge = {"content-type": "application/merge-patch+json"}
    for job in site.objects(jobs):
        path = f"{jobs}/{job['metadata']['name']}"
        site.http.patch(path, content=json.dumps({"spec": {"suspend": False}}), headers=merge).raise_for_status()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def named(requests: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{verb} {kind}": count for (verb, kind), count in sorted(requests.items()) if count}


# --- What has to hold of the run --------------------------------------------------------------------------------------


def test_each_task_succeeds_at_once_with_the_result_of_its_own_experiment(site, seen):
    indexes = range(WAITS)
    instances = [(one["map_index"], one["state"], one["try_number"]) for one in site.instances()]
    assert instances == [(index, "success", 1) for index in indexes]
    results: list[dict[str, Any]] = site.airflow.xcom(DAG_ID, site.run_id, "collect")
    assert [result["parameters"] for result in results] == [{"index": index} for index in indexes]
    assert [result["metrics"] for result in results] == [{"loss": index + 0.5} for index in indexes]
    objects = [one["metadata"]["name"] for one in site.objects(EXPERIMENTS)]
    assert sorted(result["experiment"] for result in results) == sorted(objects)


def test_each_trigger_runs_and_fires_once(site, seen):
    for event in (TRIGGER_STARTED, TRIGGER_FIRED):
        assert sorted(indexes_in(site, event)) == list(range(WAITS))


def test_no_worker_is_left_while_all_tasks_wait(seen):
    assert seen.workers_while_deferring > 0
    assert seen.workers_while_waiting == 0


def test_the_api_server_has_one_watch_of_each_kind(seen):
    assert seen.open_watches == len(WATCHED)
    # One may be kept open that a request was sent on.
    assert seen.connections <= len(WATCHED) + 1


def test_nothing_is_asked_while_nothing_happens(seen):
    # A watch may just have reached the server's time limit.
    assert sum(seen.requests_while_idle.values()) <= NEW_WATCHES


def test_broken_watches_cost_one_list_and_one_watch_of_each_kind(seen):
    assert sum(seen.requests_of_cuts.values()) <= CUTS * NEW_WATCHES


def test_the_whole_run_costs_no_more_than_its_minutes_and_its_broken_watches(seen):
    minutes = sum(seen.seconds.values()) / 60
    assert sum(seen.requests.values()) <= (1 + CUTS) * NEW_WATCHES + PER_MINUTE * minutes
