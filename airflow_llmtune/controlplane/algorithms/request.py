"""What an algorithm is asked and answers: the experiment and its trials, reduced to what a search needs. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from airflow_llmtune.controlplane.algorithms.search_space import Assignments, InvalidSettingsError, Parameter

TrialOutcome = Literal["running", "complete", "failed"]


@dataclass(frozen=True)
class PastTrial:
    """One parameter set that was suggested before, and what came of it."""

    assignments: Assignments
    outcome: TrialOutcome = "running"
    value: float | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchRequest:
    """``experiment_uid`` seeds the search when ``random_state`` is not set.

    ``past`` holds everything suggested so far in the order of suggestion. ``strict`` asks for upstream's faults too.
    """

    space: Sequence[Parameter]
    minimize: bool
    settings: Mapping[str, str] = field(default_factory=dict)
    past: Sequence[PastTrial] = ()
    max_trial_count: int | None = None
    parallel_trial_count: int = 3
    resume_policy: str = "Never"
    experiment_name: str = ""
    experiment_uid: str = ""
    strict: bool = False

    def seed(self, drawn: Sequence[Assignments]) -> int:
        """A seed for the draw that follows these parameter sets.

        It depends on all of them, not on their number: after some were dropped no draw repeats an earlier
        one. So the same ``random_state`` and the same results give the same search, however the calls were
        batched.
        """
        base = self.settings.get("random_state") or self.experiment_uid
        text = json.dumps([base, [dict(sorted(one.items())) for one in drawn]])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    def loss(self, trial: PastTrial) -> float:
        """The value of a complete trial as something to minimise."""
        assert trial.value is not None
        return trial.value if self.minimize else -trial.value


@dataclass(frozen=True)
class Suggested:
    """The next parameter set; without a name the Trial gets a generated one."""

    assignments: Assignments
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """Fewer parameter sets than asked for when more can come only after some trials' ends, or never (``ended``).

    ``state`` is shown in the Suggestion's status and overlaid onto the settings of the next request.
    """

    suggested: Sequence[Suggested] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False


class SearchAlgorithm(Protocol):
    def validate(self, request: SearchRequest) -> None:
        """Raise InvalidSettingsError when the settings or the space do not suit."""

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        """The next parameter sets, at most ``count``. May take a while: call it off the loop."""


def one_by_one(request: SearchRequest, count: int, draw: Callable[[Sequence[PastTrial], int], Assignments]) -> Reply:
    """A reply whose every set is drawn, with a seed of its own, as if those before it were running already."""
    past = list(request.past)
    for _ in range(count):
        past.append(PastTrial(draw(past, request.seed([trial.assignments for trial in past]))))
    return Reply([Suggested(trial.assignments) for trial in past[len(request.past) :]])


Rule = tuple[Callable[[str], bool], str]
"""Whether a setting's text is allowed, and what to say when it is not; the check may raise ValueError."""

RANDOM_STATE: Rule = (lambda text: int(text) >= 0, "random_state should be great or equal than zero")


def check_settings(
    algorithm: str, settings: Mapping[str, str], rules: Mapping[str, Rule], *, ignore_unknown: bool = False
) -> None:
    """Raise Katib's own texts for unknown settings and bad values; ``{value}`` in a rule's text is what was given."""
    for name, text in settings.items():
        if name not in rules:
            if ignore_unknown:
                continue
            raise InvalidSettingsError(f"unknown setting {name} for algorithm {algorithm}")
        allowed, complaint = rules[name]
        try:
            accepted = allowed(text)
        except ValueError as error:
            raise InvalidSettingsError(f"failed to validate {name}({text}): {error}") from error
        if not accepted:
            raise InvalidSettingsError(complaint.replace("{value}", text))
