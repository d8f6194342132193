"""What people and clusters do to a task that tunes, as data; with those of ``ending_cases.py`` all events."""

from __future__ import annotations

from tests.chaos.cases import Outcome
from tests.chaos.ending_cases import ENDINGS
from tests.chaos.event import BEST_SO_FAR, HELD, NOTHING, Event

__all__ = ["EVENTS"]

MAPPED = 20

_PEOPLE = (
    Event(
        name="cleared while deferred",
        what="cleared while it waits",
        arguments={"on_clear": "restart"},
        outcome=Outcome("deleted; another one is created", "a new try", "the new one's result"),
        created=2,
    ),
    Event(
        name="cleared while deferred, adopt",
        what="cleared while it waits",
        arguments={"on_clear": "adopt"},
        outcome=Outcome("goes on", "a new try, which adopts it", "the result"),
    ),
    Event(
        name="cleared after success",
        what="cleared after its success",
        arguments={"on_clear": "restart"},
        outcome=Outcome("kept; another one is created", "a new try", "the new one's result, in place of the old"),
        created=2,
        left=("Succeeded", "Succeeded"),
        results=2,
    ),
    Event(
        name="cleared after success, adopt",
        what="cleared after its success",
        arguments={"on_clear": "adopt"},
        outcome=Outcome("kept", "a new try, which reads it once more", "the same result"),
        results=2,
    ),
    Event(
        name="cleared in a worker",
        what="cleared while its worker waits",
        arguments={"deferrable": False, "on_clear": "restart"},
        outcome=Outcome("deleted; another one is created", "a new try", "the new one's result"),
        created=2,
    ),
    Event(
        name="cleared in a worker, adopt",
        what="cleared while its worker waits",
        arguments={"deferrable": False, "on_clear": "adopt"},
        outcome=Outcome("goes on", "a new try, which adopts it", "the result"),
    ),
    Event(
        name="marked failed",
        what="marked failed while it waits",
        arguments={"on_kill_action": "delete"},
        outcome=Outcome("deleted", "failed", BEST_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
    Event(
        name="marked failed, keep",
        what="marked failed while it waits",
        arguments={"on_kill_action": "keep"},
        outcome=Outcome("runs on to its own end", "failed", BEST_SO_FAR),
        state="failed",
        results=0,
    ),
    Event(
        name="marked failed in a worker",
        what="marked failed while its worker waits",
        arguments={"deferrable": False, "on_kill_action": "delete"},
        outcome=Outcome("deleted", "failed", BEST_SO_FAR),
        state="failed",
        left=(),
        results=0,
    ),
    Event(
        name="marked success",
        what="marked success while it waits",
        outcome=Outcome("deleted", "success; tasks downstream run without a result", BEST_SO_FAR),
        left=(),
        results=0,
    ),
    Event(
        name="run deleted",
        what="its DAG run is marked failed and deleted while it waits",
        outcome=Outcome("deleted", "gone", "gone"),
        state="removed",
        left=(),
        results=0,
    ),
    Event(
        name="deleted by hand",
        what="somebody deletes its Experiment",
        outcome=Outcome("gone; the next try creates another one", "`OutcomeError`, then the next try", "the result"),
        created=2,
    ),
    Event(
        name="foreign object",
        what="an Experiment of somebody else has its name",
        outcome=Outcome("the other one is left alone", "failed: `ForeignObjectError` names its owner", NOTHING),
        state="failed",
        created=0,
        results=0,
    ),
    Event(
        name="two runs",
        what="two runs of its DAG at once",
        outcome=Outcome("one each", "both succeed", "each its own result"),
        created=2,
        left=("Succeeded", "Succeeded"),
        results=2,
    ),
    Event(
        name="mapped",
        what=f"mapped over {MAPPED} sets of arguments",
        trial=f"{HELD}; echo loss=$loss",
        outcome=Outcome("one for each map index", "all succeed", "each its own result"),
        mapped=MAPPED,
        created=MAPPED,
        left=("Succeeded",) * MAPPED,
        results=MAPPED,
    ),
)

_CLUSTER = (
    Event(
        name="expired token",
        what="the token of its kubeconfig expires and is replaced",
        outcome=Outcome("goes on", "waits on: the file is read anew", "the result"),
    ),
    Event(
        name="storm of 410",
        what="watches and lists expire (410), again and again",
        outcome=Outcome("goes on", "waits on", "the result"),
    ),
    Event(
        name="storm of 429",
        what="the API server is overloaded (429)",
        outcome=Outcome("goes on", "waits on, no sooner than `Retry-After` says", "the result"),
    ),
    Event(
        name="storm of 500",
        what="the API server fails (500)",
        outcome=Outcome("goes on", "waits on", "the result"),
    ),
    Event(
        name="long outage",
        what="the API server fails for longer than `api_retry_timeout`",
        arguments={"api_retry_timeout": 3.0},
        outcome=Outcome("goes on", "`KubernetesApiError`; the next try adopts it", "the result"),
        retries=20,
    ),
    Event(
        name="restarted with its data",
        what="the control plane is killed, and started with its data",
        outcome=Outcome("goes on", "waits on", "the result"),
    ),
    Event(
        name="restarted without its data",
        what="the control plane is killed, and its data are lost",
        outcome=Outcome("gone; the next try creates another one", "`OutcomeError`, then the next try", "the result"),
        created=2,
    ),
)

EVENTS: tuple[Event, ...] = (*_PEOPLE, *_CLUSTER, *ENDINGS)
