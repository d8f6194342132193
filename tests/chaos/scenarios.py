"""What makes each event happen, and what only that event asks of the run; the counts are compared for all alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from airflow_llmtune.resources.meta import object_name
from tests.chaos.event import BEST_SO_FAR, NOTHING, PARTIAL, TRIALS_SO_FAR
from tests.chaos.event_run import TASK, EventRun

__all__ = ["PLACES", "SCENARIOS", "check_words"]

Scenario = Callable[[EventRun], None]
SCENARIOS: dict[str, Scenario] = {}
# The control plane of one event alone, as it is misused; the other events share one.
PLACES: dict[str, Literal["own", "program"]] = {}
STORM = 3
# Of the trial that ends first.
LOSS = 1.5


def happens(*names: str, place: Literal["own", "program"] | None = None) -> Callable[[Scenario], Scenario]:
    """Name the events that the function brings about, and where."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.update(dict.fromkeys(names, scenario))
        if place is not None:
            PLACES.update(dict.fromkeys(names, place))
        return scenario

    return register


def best(run: EventRun) -> float | None:
    """Return the best value that the task has told of so far."""
    told: dict[str, Any] = run.xcom("progress") or {}
    return told["best"]["value"] if told.get("best") else None


def check_words(run: EventRun) -> None:
    """Look whether what the table says of the task's errors and of its XCom is so."""
    outcome = run.event.outcome
    errors = re.findall(r"`(\w+Error)`", outcome.task)
    log = run.log() if errors else ""
    assert [error for error in errors if error not in log] == []
    if outcome.xcom == BEST_SO_FAR:
        run.until(lambda: best(run) == LOSS)
    if outcome.xcom == TRIALS_SO_FAR:
        assert run.xcom("progress")["counts"]
    if outcome.xcom in {BEST_SO_FAR, TRIALS_SO_FAR, NOTHING}:
        assert run.xcom("return_value") is None
    for result in run.given():
        assert result["metrics"] == {"loss": result["parameters"]["index"] + 0.5}
        assert result["parameters"]["index"] == 1 or run.event.mapped
        assert result["partial"] == (outcome.xcom == PARTIAL)


# --- People -----------------------------------------------------------------------------------------------------------


@happens("cleared while deferred", "cleared while deferred, adopt")
def clear_while_deferred(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.clear()
    run.until_it_waits(try_number=2)
    run.finish()


@happens("cleared after success", "cleared after success, adopt")
def clear_after_success(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.finish()
    run.close_gate()
    run.clear()
    adopts = run.event.arguments["on_clear"] == "adopt"
    if not adopts:
        run.until_it_waits(try_number=2)
    run.until(lambda: run.run_state(run.run_id) not in {"success", "failed"} or len(run.given()) == 2)
    run.finish()
    first, second = run.given()
    assert (first["experiment"] == second["experiment"]) == adopts


@happens("cleared in a worker", "cleared in a worker, adopt")
def clear_while_running(run: EventRun) -> None:
    run.start()
    run.until_first_trial()
    run.clear()
    run.until(lambda: run.tries() == 2 and run.state() == "running")
    if run.event.created == 2:
        run.until(lambda: len(run.created()) == 2)
    run.finish()


@happens("marked failed", "marked success")
def mark_while_deferred(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.until_first_trial()
    run.mark(run.event.state)
    run.until(lambda: not run.experiments())
    run.finish()


@happens("marked failed, keep")
def mark_and_keep(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.until(lambda: best(run) == LOSS)
    run.mark("failed")
    run.finish()


@happens("marked failed in a worker")
def mark_while_running(run: EventRun) -> None:
    run.start()
    run.until_first_trial()
    run.mark("failed")
    run.until(lambda: not run.experiments())
    run.finish()


@happens("run deleted")
def delete_run(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.delete()
    run.until(lambda: not run.experiments())


@happens("deleted by hand")
def delete_by_hand(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    (experiment,) = run.experiments()
    path = f"/apis/kubeflow.org/v1beta1/namespaces/{run.place.namespace}/experiments"
    run.place.http.delete(f"{path}/{experiment['metadata']['name']}").raise_for_status()
    run.until_it_waits(try_number=2)
    run.finish()


@happens("foreign object")
def meet_a_foreigner(run: EventRun) -> None:
    occupy(run, object_name(run.event.dag_id, TASK, run_id := "foreign", -1, 1))
    run.start(run_id)
    run.finish()
    assert "it belongs to dag_id=another" in run.log()


def occupy(run: EventRun, name: str) -> None:
    """Create somebody else's Experiment of that name."""
    from tests.chaos.dags.events import experiment

    body = experiment(run.event, indexes="1")
    body["metadata"] = {"name": name, "labels": {"dag_id": "another"}}
    pod = body["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    pod["containers"][0]["command"][-1] = ": ${trialParameters.index}; echo loss=1.5"
    path = f"/apis/kubeflow.org/v1beta1/namespaces/{run.place.namespace}/experiments"
    run.place.http.post(path, json=body).raise_for_status()


@happens("two runs")
def two_runs(run: EventRun) -> None:
    run.start()
    run.start()
    run.until_it_waits()
    run.finish()
    names = [result["experiment"] for result in run.given()]
    assert sorted(names) == sorted(one["metadata"]["name"] for one in run.experiments())


@happens("mapped")
def mapped(run: EventRun) -> None:
    run.start()
    run.until(lambda: len(run.created()) == run.event.mapped)
    run.until_it_waits()
    run.finish()
    found = [result["parameters"]["index"] for result in run.given()]
    assert found == [index % 9 + 1 for index in range(run.event.mapped)], found


# --- The cluster ------------------------------------------------------------------------------------------------------


@happens("expired token", place="own")
def expire_token(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.place.rotate_token()
    # The watches that are open were let in with the old token.
    run.place.plane.drop_watches()
    run.finish()


@happens("storm of 410", place="own")
def storm_of_410(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    faults = run.place.plane.faults
    for _ in range(STORM):
        faults.add("/namespaces/default/(experiments|trials)", cut_watch="expire")
        faults.add("/namespaces/default/(experiments|trials)", method="GET", code=410)
    run.place.plane.drop_watches()
    run.until(lambda: faults.injected == 2 * STORM)
    run.finish()


@happens("storm of 429", "storm of 500", place="own")
def storm(run: EventRun) -> None:
    """Before the Experiment is created, while the task waits, and when it reads the result."""
    faults, code = run.place.plane.faults, int(run.event.name[-3:])
    wait = {"retry_after": 1} if code == 429 else {}
    faults.add("/experiments", method="POST", code=code, times=STORM, **wait)
    run.start()
    run.until_it_waits()
    faults.add("/namespaces/default/(experiments|trials)[?]", method="GET", code=code, times=STORM, **wait)
    run.place.plane.drop_watches()
    run.until(lambda: faults.injected == 2 * STORM)
    faults.add("/experiments/", method="GET", code=code, times=STORM, **wait)
    run.finish()
    assert faults.injected == 3 * STORM


@happens("long outage", place="own")
def outlast_an_outage(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.place.plane.faults.add("/namespaces/default/(experiments|trials)", code=503, times=10_000)
    run.place.plane.drop_watches()
    run.until(lambda: run.tries() > 1)
    run.place.plane.faults.clear()
    run.until_it_waits(try_number=2)
    run.finish()


@happens("restarted with its data", place="program")
def restart_with_data(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.place.program.kill()
    run.place.program.restart()
    run.finish()


@happens("restarted without its data", place="program")
def restart_without_data(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    program = run.place.program
    program.kill()
    for file in program.state.glob("state.sqlite*"):
        file.unlink()
    program.restart()
    run.until_it_waits(try_number=2)
    run.finish()


# --- Trials, and the end ----------------------------------------------------------------------------------------------


@happens(
    "failed with a good trial, use best",
    "too few succeeded trials",
    "finished, keep",
    "finished, delete",
    "finished, delete, lost",
    "finished, delete succeeded",
    "failed, delete",
    "failed, delete succeeded",
    "all trials failed, retry policy",
)
def run_to_the_end(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.finish()


@happens("NaN metrics", "all trials failed")
def fail_twice(run: EventRun) -> None:
    run.start()
    for number in (1, 2):
        run.until_it_waits(number)
        run.open_gate()
        run.until(lambda number=number: run.tries() > number or run.state() == "failed")
        run.close_gate()
    run.finish()


@happens("goal reached")
def reach_the_goal(run: EventRun) -> None:
    run.start()
    run.until(lambda: run.run_state(run.run_id) == "success")
    run.finish()


# --- The clock, and other tries ---------------------------------------------------------------------------------------


@happens("timeout", "timeout, use best", "timeout, use best, lost", "execution timeout", "stalled")
def never_end(run: EventRun) -> None:
    run.start()
    run.until(lambda: run.run_state(run.run_id) in {"success", "failed"})
    run.finish()


@happens("stalled, warn")
def stall_and_go_on(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.until(lambda: "got no further" in run.log())
    run.finish()


@happens("changed arguments", "changed arguments, adopt")
def change_arguments(run: EventRun) -> None:
    run.start()
    run.until_it_waits(try_number=2)
    run.finish()


@happens("changed arguments, fail")
def change_arguments_and_fail(run: EventRun) -> None:
    run.start()
    run.until(lambda: run.state() == "failed")
    run.finish()
    assert "made by an earlier try with other arguments" in run.log()


@happens("trigger failed", "trigger failed in the last try")
def break_trigger(run: EventRun) -> None:
    run.start()
    run.until_it_waits()
    run.until_first_trial()
    run.break_trigger()
    if run.event.retries:
        run.until_it_waits(try_number=2)
    else:
        run.until(lambda: not run.experiments())
    run.finish()
