"""What a case of ``event_cases.py`` or ``ending_cases.py`` holds, beside that of ``cases.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.cases import Case

__all__ = ["BEST_SO_FAR", "HELD", "NOTHING", "PARTIAL", "TRIALS_SO_FAR", "Event"]

# What is left of a task's XComs, where that is not its result; the harness looks.
BEST_SO_FAR = "`progress`: the best so far; no result"
TRIALS_SO_FAR = "`progress`: the trials; no result"
PARTIAL = "the best trial so far, with `partial`"
NOTHING = "no result"
# A trial that waits for the harness, also if it is the first.
HELD = "until [ -e {{ params.gate }} ]; do sleep 0.5; done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Case):
    """
    Something that a person, a cluster or a clock does while a task waits.

    The Experiment has two trials, one after the other: the first ends at once, the second when the harness lets it.

    :param what: what happens, as the table says it.
    :param arguments: what the operator is given besides; these decide.
    :param trial: what a trial does in the end in place of reporting its ``$loss``, as a shell script.
    :param spec: what the Experiment's spec has besides.
    :param first_try: what the first try does: ``fails`` as soon as the Experiment is created, its ``trigger fails``, or
        it ``is lost at its end``, when its result is not stored yet.
    :param has_retry_policy: the task has the one of ``retry_policy.py``.
    """

    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 1
    trial: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    first_try: str = ""
    mapped: int = 0
    has_retry_policy: bool = False

    @property
    def dag_id(self) -> str:
        return "event_" + re.sub(r"\W+", "_", self.name)
