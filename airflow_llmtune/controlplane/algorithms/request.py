"""What an algorithm is asked: the experiment and its trials, reduced to what a search needs. Pure."""

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


@dataclass(frozen=True)
class SearchRequest:
    """``experiment_uid`` seeds the search when ``random_state`` is not set."""

    space: Sequence[Parameter]
    minimize: bool
    settings: Mapping[str, str] = field(default_factory=dict)
    past: Sequence[PastTrial] = ()
    max_trial_count: int | None = None
    experiment_uid: str = ""

    def seed(self, drawn: Sequence[Assignments]) -> int:
        """A seed for the draw that follows these parameter sets.

        It depends on all of them, not on their number: after some were dropped no draw repeats an earlier
        one. So the same ``random_state`` and the same results give the same search, however the calls were
        batched.
        """
        base = self.settings.get("random_state") or self.experiment_uid
        text = json.dumps([base, [dict(sorted(one.items())) for one in drawn]])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


class SearchAlgorithm(Protocol):
    def validate(self, request: SearchRequest) -> None:
        """Raise InvalidSettingsError when the settings or the space do not suit."""

    def suggest(self, request: SearchRequest, count: int) -> list[Assignments]:
        """The next parameter sets; fewer than asked for when the space is used up."""


Rule = tuple[Callable[[str], bool], str]
"""Whether a setting's text is allowed, and what to say when it is not; the check may raise ValueError."""

RANDOM_STATE: Rule = (lambda text: int(text) >= 0, "random_state should be great or equal than zero")


def check_settings(algorithm: str, settings: Mapping[str, str], rules: Mapping[str, Rule]) -> None:
    """Raise Katib's own texts for unknown settings and bad values."""
    for name, text in settings.items():
        if name not in rules:
            raise InvalidSettingsError(f"unknown setting {name} for algorithm {algorithm}")
        allowed, complaint = rules[name]
        try:
            accepted = allowed(text)
        except ValueError as error:
            raise InvalidSettingsError(f"failed to validate {name}({text}): {error}") from error
        if not accepted:
            raise InvalidSettingsError(complaint)
