"""
What people, clusters and clocks do to a task that tunes, on a real Airflow: the events of ``event_cases.py``.

They run side by side, each in a thread of its own. ``pytest`` takes a few, ``make chaos`` all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.event import Event
from tests.chaos.event_cases import EVENTS
from tests.chaos.event_run import EventRun
from tests.chaos.places import Places
from tests.chaos.scenarios import PLACES, SCENARIOS, check_words
from tests.chaos.seen import Seen
from tests.chaos.site import ChaosSite, chaos_site

# More would wait for the two cores of a small machine. The slowest, which wait for a clock, come first.
AT_ONCE = 10
SETTINGS = {
    "CORE__PARALLELISM": "8",
    # Nothing is killed here, and whoever is slow is not dead.
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "60",
}
SHORT = {"cleared while deferred", "marked failed", "changed arguments, adopt", "finished, delete"}
pytestmark = [pytest.mark.timeout(900)]


class Told(NamedTuple):
    seen: Seen
    seconds: float


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosSite]:
    dag_ids = [event.dag_id for event in asked_for(request.session.items)]
    with chaos_site(tmp_path_factory.mktemp("site"), *dag_ids, settings=SETTINGS) as site:
        yield site


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, site: ChaosSite
) -> Iterator[dict[str, Future[Told]]]:
    """Start all events that are asked for; each is looked at once it is over."""
    home, events = tmp_path_factory.mktemp("events"), asked_for(request.session.items)
    with closing(Places(home / "places")) as places, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {event.name: pool.submit(bring_about, event, site, places, home / event.dag_id) for event in events}


def asked_for(items: list[pytest.Item]) -> list[Event]:
    here = [item for item in items if isinstance(item, pytest.Function) and item.originalname == test_event.__name__]
    events = [item.callspec.params["event"] for item in here]
    return sorted(events, key=lambda event: not any(isinstance(each, timedelta) for each in event.arguments.values()))


def bring_about(event: Event, site: ChaosSite, places: Places, folder: Path) -> Told:
    kind, start = PLACES.get(event.name), time.monotonic()
    with ExitStack() as stack:
        if kind is None:
            place = places.shared()
        else:
            open_place = places.own_program if kind == "program" else places.own
            place = stack.enter_context(open_place(folder.name))
        run = EventRun(event, site, place, folder / "run")
        SCENARIOS[event.name](run)
        check_words(run)
        return Told(run.settled(), time.monotonic() - start)


def _param(event: Event) -> object:
    return pytest.param(event, id=event.name, marks=() if event.name in SHORT else pytest.mark.chaos)


@pytest.mark.parametrize("event", [_param(event) for event in EVENTS])
def test_event(event: Event, running: dict[str, Future[Told]], tell: Callable[..., None]) -> None:
    told = running[event.name].result()
    tell(event, told.seen, told.seconds)
