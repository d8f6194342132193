"""The kill matrix: episodes of one target and one fault each, which hit four runs in the four phases of their tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.chaos.cases import Fault, Kill, Phase, Target
from tests.chaos.faults import Service, TrialPods, Triggerer, Victim, Workers
from tests.chaos.run import Run
from tests.chaos.seen import Seen
from tests.chaos.site import CONTROL_PLANE, POLL_SECONDS, ChaosSite

READY_SECONDS = 180
END_SECONDS = 180
SETTLE_SECONDS = 30
SERVICES: dict[Target, str] = {
    "triggerer": "airflow-triggerer",
    "scheduler": "airflow-scheduler",
    "api-server": "airflow-api-server",
    "control plane": CONTROL_PLANE,
}


@dataclass(frozen=True)
class Result:
    """
    What became of a run.

    :param seen: None when the harness itself failed.
    :param seconds: from the fault to the end of the run.
    """

    seen: Seen | None
    seconds: float


class Episode:
    """One target, one fault, and a run per phase."""

    def __init__(self, site: ChaosSite, target: Target, fault: Fault) -> None:
        self.site = site
        self.target = target
        self.fault = fault
        self.runs: dict[Phase, Run] = {}
        self._coming: list[Run] = []
        self._victim: Victim | None = None
        self._struck = datetime.now(UTC)
        self._seconds: dict[Phase, float] = {}

    def start(self, phases: Iterable[Phase]) -> None:
        for phase in phases:
            name = f"{self.target} {self.fault} {phase}".replace(" ", "-")
            self.runs[phase] = Run.start(self.site, phase, name)
        self._coming = list(self.runs.values())

    def is_there(self) -> bool:
        """Tell whether all runs have come to where they pause."""
        self._coming = [run for run in self._coming if not run.is_there()]
        return not self._coming

    def strike(self) -> None:
        """Hit the target, and let the tasks go on without it."""
        self._victim = self._find_victim()
        self._struck = datetime.now(UTC)
        self._victim.strike(self.fault)
        for run in self.runs.values():
            run.gates.open_task()

    def let_go(self) -> None:
        for run in self.runs.values():
            run.gates.open_task()
            run.gates.open_trials()

    def recover(self) -> None:
        assert self._victim is not None, "strike() comes first"
        self._victim.recover(self.fault)
        for run in self.runs.values():
            run.gates.open_trials()

    def has_ended(self) -> bool:
        for phase, run in self.runs.items():
            if phase not in self._seconds and (end := run.ended()) is not None:
                self._seconds[phase] = (end - self._struck).total_seconds()
        return len(self._seconds) == len(self.runs)

    def results(self) -> dict[Phase, Result]:
        for run in self.runs.values():
            self._settle(run)
        return {phase: Result(run.seen(), self._seconds.get(phase, END_SECONDS)) for phase, run in self.runs.items()}

    def _find_victim(self) -> Victim:
        runs = list(self.runs.values())
        match self.target:
            case "worker":
                return Workers(runs)
            case "trial pod":
                return TrialPods(self.site, runs)
            case "triggerer" if "deferred" in self.runs:
                return Triggerer(self.site, self.runs["deferred"])
        return Service(self.site, SERVICES[self.target])

    def _settle(self, run: Run) -> None:
        """Wait for what the end of a run sets off; what has not gone by then is an orphan, which ``seen()`` tells."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not run.is_quiet() and time.monotonic() < deadline:
            time.sleep(0.5)


# Faults of single workers and pods leave the others alone, so all of these go at once.
TOGETHER: tuple[Target, ...] = ("worker", "trial pod")


class Matrix:
    """
    Plays episodes as their results are asked for, each once.

    :param kills: all that will be asked for.
    """

    def __init__(self, site: ChaosSite, kills: Sequence[Kill]) -> None:
        self.site = site
        self.kills = kills
        self._results: dict[str, Result] = {}

    def result(self, kill: Kill) -> Result:
        if kill.name not in self._results:
            group = [one for one in self.kills if _group(one) == _group(kill)]
            # What the harness itself cannot do fails all cases of the group, not each of them once more.
            self._results |= dict.fromkeys((one.name for one in group), Result(None, 0.0))
            self._results |= _play(self.site, group)
        return self._results[kill.name]


def _group(kill: Kill) -> tuple[str, str]:
    """Return what goes at once."""
    return ("", "") if kill.target in TOGETHER else (kill.target, kill.fault)


def _play(site: ChaosSite, kills: Sequence[Kill]) -> dict[str, Result]:
    episodes = {key: Episode(site, *key) for key in dict.fromkeys((kill.target, kill.fault) for kill in kills)}
    for key, episode in episodes.items():
        episode.start(kill.phase for kill in kills if (kill.target, kill.fault) == key)
    try:
        site.until(
            lambda: not [one for one in episodes.values() if not one.is_there()], READY_SECONDS, "the pause of all"
        )
    except AssertionError:
        for episode in episodes.values():
            episode.let_go()  # They must not hold up those that come after.
        raise
    for episode in episodes.values():
        episode.strike()
    # Who is stopped comes last, as its time is not up yet.
    for episode in sorted(episodes.values(), key=lambda one: one.fault == "SIGSTOP"):
        episode.recover()
    _await_ends(list(episodes.values()))
    found = {key: episode.results() for key, episode in episodes.items()}
    return {kill.name: found[kill.target, kill.fault][kill.phase] for kill in kills}


def _await_ends(episodes: Sequence[Episode]) -> None:
    """A run that does not end is told as it is then."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        # All are asked, for each notes when its runs end.
        if not [episode for episode in episodes if not episode.has_ended()]:
            return
        time.sleep(POLL_SECONDS)
