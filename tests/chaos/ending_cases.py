"""How a task that tunes comes to an end by itself, or to another try, as data; see ``cases.py``."""

from __future__ import annotations

from datetime import timedelta

from tests.chaos.cases import Outcome
from tests.chaos.event import BEST_SO_FAR, HELD, NOTHING, PARTIAL, TRIALS_SO_FAR, Event

__all__ = ["ENDINGS"]

# Long enough for the first trial to end, also while all other events happen on the same two cores.
TIMEOUT = timedelta(seconds=60)
EXECUTION = timedelta(seconds=40)
STALL = timedelta(seconds=30)
NAN = f"{HELD}; echo loss=nan"
FAILING = f"{HELD}; echo no memory >&2; exit 3"
# A good trial, then one that fails.
FADING = "[ $loss = 1.5 ] || { echo no memory >&2; exit 3; }; echo loss=$loss"
STRICT = {"maxFailedTrialCount": 0}

_TRIALS = (
    Event(
        name="NaN metrics",
        what="it succeeds, and no trial has a finite metric",
        trial=NAN,
        outcome=Outcome("kept; each try creates another one", "`ExperimentFailedError`", TRIALS_SO_FAR),
        state="failed",
        created=2,
        left=("Succeeded", "Succeeded"),
        results=0,
    ),
    Event(
        name="all trials failed",
        what="it fails",
        trial=FAILING,
        arguments={"on_failure": "fail"},
        spec=STRICT,
        outcome=Outcome(
            "kept; each try creates another one",
            "`ExperimentFailedError`, with the reasons of trials and pods",
            TRIALS_SO_FAR,
        ),
        state="failed",
        created=2,
        left=("Failed", "Failed"),
        results=0,
    ),
    Event(
        name="all trials failed, retry policy",
        what="it fails",
        trial=FAILING,
        spec=STRICT,
        retries=3,
        has_retry_policy=True,
        outcome=Outcome("kept", "failed at once: `ExperimentFailedError`", TRIALS_SO_FAR),
        state="failed",
        left=("Failed",),
        results=0,
    ),
    Event(
        name="failed with a good trial, use best",
        what="it fails after `min_succeeded_trials`",
        trial=FADING,
        arguments={"on_failure": "use_best"},
        spec=STRICT,
        outcome=Outcome("kept", "success", PARTIAL),
        left=("Failed",),
    ),
    Event(
        name="too few succeeded trials",
        what="it ends with fewer good trials than `min_succeeded_trials`",
        trial=FADING,
        arguments={"min_succeeded_trials": 2},
        retries=0,
        outcome=Outcome("kept; each try creates another one", "`ExperimentFailedError`", NOTHING),
        state="failed",
        results=0,
    ),
)

_GOAL = Event(
    name="goal reached",
    what="it reaches its goal while trials still run",
    arguments={"stop_leftovers": True},
    spec={"parallelTrialCount": 2, "objective": {"type": "minimize", "objectiveMetricName": "loss", "goal": 1.6}},
    outcome=Outcome("kept; its trials that still run are stopped", "success", "the result"),
)

_CLOCK = (
    Event(
        name="timeout",
        what="`timeout` passes, which counts from the first try on",
        arguments={"timeout": TIMEOUT, "on_timeout": "fail"},
        outcome=Outcome("deleted", "failed, whatever `retries` says: `WaitTimeoutError`", BEST_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
    Event(
        name="timeout, use best",
        what="`timeout` passes, which counts from the first try on",
        arguments={"timeout": TIMEOUT, "on_timeout": "use_best"},
        outcome=Outcome("deleted", "success", PARTIAL),
        left=(),
    ),
    Event(
        name="execution timeout",
        what="`execution_timeout` passes, which counts anew in each try",
        arguments={"execution_timeout": EXECUTION},
        outcome=Outcome("deleted; the next try creates another one", "`WaitTimeoutError`", BEST_SO_FAR),
        state="failed",
        created=2,
        left=(),
        results=0,
    ),
    Event(
        name="stalled",
        what="nothing gets further for `stall_timeout`",
        arguments={"stall_timeout": STALL, "on_stall": "fail"},
        retries=0,
        outcome=Outcome("deleted", "failed: `StalledError`, with the reasons of pods", BEST_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
    Event(
        name="stalled, warn",
        what="nothing gets further for `stall_timeout`",
        arguments={"stall_timeout": STALL, "on_stall": "warn"},
        outcome=Outcome("goes on", "a warning in its log; waits on", "the result"),
    ),
)

_TRIES = (
    Event(
        name="changed arguments",
        what="a retry finds what runs, with other arguments than its own",
        arguments={"on_stale": "restart"},
        first_try="fails",
        outcome=Outcome("deleted; another one is created", "a new try", "the new one's result"),
        created=2,
    ),
    Event(
        name="changed arguments, adopt",
        what="a retry finds what runs, with other arguments than its own",
        arguments={"on_stale": "adopt"},
        first_try="fails",
        outcome=Outcome("goes on", "a new try, which adopts it", "the old one's result"),
    ),
    Event(
        name="changed arguments, fail",
        what="a retry finds what runs, with other arguments than its own",
        arguments={"on_stale": "fail"},
        first_try="fails",
        outcome=Outcome("goes on to its own end", "failed: `StaleObjectError`", NOTHING),
        state="failed",
        results=0,
    ),
    Event(
        name="trigger failed",
        what="its trigger fails inside Airflow",
        first_try="trigger fails",
        outcome=Outcome("goes on; the next try adopts it", "a new try", "the result"),
    ),
    Event(
        name="trigger failed in the last try",
        what="its trigger fails inside Airflow, in the last try",
        first_try="trigger fails",
        retries=0,
        outcome=Outcome("deleted", "failed", BEST_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
)

_CLEANUP = (
    Event(
        name="finished, keep",
        what="it succeeds",
        arguments={"on_finish_action": "keep"},
        outcome=Outcome("kept", "success", "the result"),
    ),
    Event(
        name="finished, delete",
        what="it succeeds",
        arguments={"on_finish_action": "delete"},
        outcome=Outcome("deleted once Airflow has the result", "success", "the result"),
        left=(),
    ),
    Event(
        name="finished, delete succeeded",
        what="it succeeds",
        arguments={"on_finish_action": "delete_succeeded"},
        outcome=Outcome("deleted once Airflow has the result", "success", "the result"),
        left=(),
    ),
    Event(
        name="finished, delete, lost",
        what="it succeeds, and its worker dies before Airflow has the result",
        arguments={"on_finish_action": "delete"},
        first_try="is lost at its end",
        outcome=Outcome("deleted", "a new try, which finds the result in the task's state store", "the result"),
        left=(),
    ),
    Event(
        name="timeout, use best, lost",
        what="`timeout` passes, and its worker dies before Airflow has the result",
        arguments={"timeout": TIMEOUT, "on_timeout": "use_best"},
        first_try="is lost at its end",
        outcome=Outcome(
            "deleted",
            "a new try, which finds the result in the task's state store",
            PARTIAL,
        ),
        left=(),
    ),
    Event(
        name="failed, delete",
        what="it fails",
        trial=FAILING,
        spec=STRICT,
        retries=0,
        arguments={"on_finish_action": "delete"},
        outcome=Outcome("deleted", "failed: `ExperimentFailedError`", TRIALS_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
    Event(
        name="failed, delete succeeded",
        what="it fails",
        trial=FAILING,
        spec=STRICT,
        retries=0,
        arguments={"on_finish_action": "delete_succeeded"},
        outcome=Outcome("kept", "failed: `ExperimentFailedError`", TRIALS_SO_FAR),
        state="failed",
        left=("Failed",),
        results=0,
    ),
)

ENDINGS: tuple[Event, ...] = (*_TRIALS, _GOAL, *_CLOCK, *_TRIES, *_CLEANUP)
