"""``hyperband``: brackets of successive halving, as in the paper and in Katib.

Bracket ``s`` (from the largest down to 0) begins with ``ceil((s_max + 1) * eta**s / (s + 1))`` random parameter sets
on a budget of ``r_l / eta**s``. When all trials of a rung have ended the best ``ceil(n / eta)`` (in the paper, that
many rounded down) go on with ``eta`` times the budget, up to ``r_l``. The budget is the value of the parameter named
by ``resource_name``.

Where the search is follows from the trials alone; the state that goes into the Suggestion's status, under Katib's
names, only tells of it. Differs from Katib: there the size of a rung is the number of sets that happen to be asked for,
so that the second rung never has as many as the exact-count rule demands and the Experiment hangs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_llmtune.controlplane.algorithms.request import PastTrial, Reply, SearchRequest, Suggested
from airflow_llmtune.controlplane.algorithms.sampling import random_assignments
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, InvalidSettingsError

_ETA = 3


class Hyperband:
    def validate(self, request: SearchRequest) -> None:
        settings = request.settings
        if "r_l" not in settings or "resource_name" not in settings:
            raise InvalidSettingsError("r_l and resource_name must be set.")
        if not _is_positive(settings["r_l"]):
            raise InvalidSettingsError("r_l must be a positive float number.")
        if not _is_base(settings.get("eta", str(_ETA))):
            raise InvalidSettingsError(f"eta is {settings['eta']}, it must be a whole number above 1")
        plan = _Plan.of(request)
        least = plan.eta**plan.s_max
        if request.parallel_trial_count < least:
            raise InvalidSettingsError(f"parallelTrialCount must be not less than {least}.")
        if all(parameter.name != plan.resource_name for parameter in request.space):
            raise InvalidSettingsError("value of resource_name setting must be in parameters.")

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        plan = _Plan.of(request)
        # The exact-count rule would fail the very first call otherwise; upstream's first rung has this size too.
        first_size = count if request.strict and not request.past else plan.size(plan.s_max)
        past = list(request.past)
        while True:
            place = plan.place(request, past, first_size)
            if len(past) - len(request.past) == count or place.draws == 0:
                break
            past.append(PastTrial(_drawn(request, plan, place, past)))
        suggested = [Suggested(trial.assignments) for trial in past[len(request.past) :]]
        return Reply(suggested, plan.state(place), ended=place.has_ended)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _is_base(text: str) -> bool:
    try:
        return int(float(text)) != 1
    except (ValueError, OverflowError):
        return False


def _drawn(request: SearchRequest, plan: _Plan, place: _Place, past: Sequence[PastTrial]) -> Assignments:
    if place.promoted:
        chosen = place.promoted[place.count].assignments
    else:
        chosen = random_assignments(request.space, request.seed([trial.assignments for trial in past]))
    return {**chosen, plan.resource_name: str(plan.budget(place.bracket, place.rung))}


@dataclass(frozen=True)
class _Place:
    """Where the search is: ``draws`` more sets of this rung can be drawn now; in rung 0 none are promoted."""

    bracket: int
    rung: int = 0
    size: int = 0
    count: int = 0
    promoted: Sequence[PastTrial] = ()

    @property
    def draws(self) -> int:
        return self.size - self.count

    @property
    def has_ended(self) -> bool:
        return self.bracket < 0


@dataclass(frozen=True)
class _Plan:
    r_l: float
    eta: int
    s_max: int
    resource_name: str

    @classmethod
    def of(cls, request: SearchRequest) -> _Plan:
        settings = request.settings
        most, eta = float(settings["r_l"]), int(float(settings.get("eta", _ETA)))
        # So upstream reads nonsense.
        eta = eta if eta > 0 else _ETA
        s_max = 0
        while eta ** (s_max + 1) <= most:
            s_max += 1
        return cls(most, eta, s_max, settings["resource_name"])

    def size(self, bracket: int) -> int:
        return math.ceil((self.s_max + 1) * int(self.eta**bracket) / (bracket + 1))

    def budget(self, bracket: int, rung: int) -> int:
        # Rounded first: 0.1 * 30 is a little less than 3.
        return max(int(round(self.r_l * self.eta**rung / self.eta**bracket, 9)), 1)

    def place(self, request: SearchRequest, past: Sequence[PastTrial], first_size: int) -> _Place:
        """Lay the past trials out, rung after rung."""
        start = 0
        for bracket in range(self.s_max, -1, -1):
            size = first_size if bracket == self.s_max else self.size(bracket)
            promoted: Sequence[PastTrial] = ()
            for rung in range(bracket + 1):
                members = past[start : start + size]
                waits = rung < bracket and any(trial.outcome == "running" for trial in members)
                if len(members) < size or waits:
                    return _Place(bracket, rung, size, len(members), promoted)
                start += size
                promoted = _best(request, members, math.ceil(size / self.eta))
                size = len(promoted)
                if not size:
                    break
        return _Place(-1)

    def state(self, place: _Place) -> dict[str, str]:
        bracket = max(place.bracket, 0)
        values = {
            "eta": self.eta,
            "s_max": self.s_max,
            "r_l": self.r_l,
            "b_l": (self.s_max + 1) * self.r_l,
            "r": self.budget(bracket, 0),
            "n": self.size(bracket),
            "current_s": place.bracket,
            "current_i": place.rung,
            "resource_name": self.resource_name,
            "evaluating_trials": place.count,
        }
        return {name: str(value) for name, value in values.items()}


def _best(request: SearchRequest, members: Sequence[PastTrial], count: int) -> Sequence[PastTrial]:
    """Those with the least loss; one that has failed is never among them."""
    ranked = sorted((trial for trial in members if trial.outcome == "complete"), key=request.loss)
    return ranked[:count]
