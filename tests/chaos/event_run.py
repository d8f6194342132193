"""One run of an event's DAG: what the harness does to it, and what it then sees of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from airflow_llmtune.resources.meta import identity
from demo.cluster import phase as last_condition
from program import processes
from tests.chaos.event import Event
from tests.chaos.first_tries import breaker
from tests.chaos.places import Place
from tests.chaos.run import has_ended
from tests.chaos.seen import Seen
from tests.chaos.site import ChaosSite

__all__ = ["EventRun"]

TASK = "tune"
# Many events happen at once on two cores.
SECONDS = 180
SETTLE_SECONDS = 60
# Each look is a request to an API server that is busy with all events.
POLL_SECONDS = 1.0

JSON = dict[str, Any]


class EventRun:
    """
    A run, and maybe another one of the same DAG.

    :param folder: of this run alone: the gate for which its trials wait, and what the task downstream was given.
    """

    def __init__(self, event: Event, site: ChaosSite, place: Place, folder: Path) -> None:
        self.event = event
        self.site = site
        self.airflow = site.airflow
        self.place = place
        self.gate = folder / "gate"
        self.deliveries = folder / "deliveries"
        folder.mkdir(parents=True)
        self.run_ids: list[str] = []

    # What happens to it.

    def start(self, run_id: str | None = None) -> None:
        paths = {"gate": self.gate, "deliveries": self.deliveries, "config_file": self.place.kubeconfig}
        texts = {name: str(path) for name, path in paths.items()}
        conf = {**texts, "namespace": self.place.namespace}
        self.run_ids.append(self.airflow.trigger(self.event.dag_id, conf, run_id))

    def open_gate(self) -> None:
        self.gate.touch()

    def close_gate(self) -> None:
        self.gate.unlink()

    def break_trigger(self) -> None:
        (experiment,) = self.experiments()
        breaker(str(self.place.kubeconfig), experiment["metadata"]["name"]).touch()

    def clear(self) -> None:
        """As a person does with "clear downstream" in the UI."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [TASK], "only_failed": False}
        body |= {"include_downstream": True, "reset_dag_runs": True}
        self.airflow.client.post(f"/dags/{self.event.dag_id}/clearTaskInstances", json=body).raise_for_status()

    def mark(self, state: str) -> None:
        self.airflow.client.patch(f"{self._path}/taskInstances/{TASK}", json={"new_state": state}).raise_for_status()

    def delete(self) -> None:
        """As a person does, who has to end the run before: Airflow deletes none that goes on."""
        self.airflow.client.patch(self._path, json={"state": "failed"}).raise_for_status()
        self.airflow.client.delete(self._path).raise_for_status()

    # What it waits for.

    def until_it_waits(self, try_number: int = 1) -> None:
        """
        Until Airflow knows that the task is deferred: its worker is done, and its trigger has started.

        An end in the moment before that Airflow tells nobody, and a wait that short it takes for a lost worker.
        """

        def waits() -> bool:
            instances = self.instances()
            if {one["state"] for one in instances} != {"deferred"} or self.tries() < try_number:
                return False
            heard = self.site.processes.log_path("airflow-scheduler").read_text(errors="replace")
            return all(_worker_is_done(one) in heard and self._trigger_runs(one) for one in instances)

        self.until(waits)

    def until_first_trial(self) -> JSON:
        """Until the first trial of an Experiment has ended, and the second runs; return the Experiment."""

        def found() -> JSON | None:
            return next((one for one in self.experiments() if _trials(one) == (1, 2)), None)

        experiment: JSON = self.until(found)
        return experiment

    def finish(self) -> None:
        """Let the trials end, and wait for the end of the run."""
        self.open_gate()
        self.until(lambda: all(self.run_state(run_id) in {"success", "failed"} for run_id in self.run_ids))

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while not (found := _ask(condition)):
            assert time.monotonic() < deadline, f"{self.event.name}: it did not happen in time; {self.seen()}"
            time.sleep(POLL_SECONDS)
        return found

    # What is seen of it.

    @property
    def run_id(self) -> str:
        return self.run_ids[-1]

    @property
    def _path(self) -> str:
        return f"/dags/{self.event.dag_id}/dagRuns/{self.run_id}"

    def run_state(self, run_id: str) -> str:
        return self.airflow.run_state(self.event.dag_id, run_id)

    def instances(self) -> list[JSON]:
        """Return the task's instances; none when the run is gone."""
        paths = [f"/dags/{self.event.dag_id}/dagRuns/{run_id}/taskInstances" for run_id in self.run_ids]
        answers = [self.airflow.client.get(path, params={"task_id": TASK}) for path in paths]
        return [one for answer in answers if answer.status_code == 200 for one in answer.json()["task_instances"]]

    def state(self) -> str:
        """Return the task's state; that of all its instances where they agree."""
        return "+".join(sorted({str(one["state"]) for one in self.instances()})) or "removed"

    def tries(self) -> int:
        return max(one["try_number"] for one in self.instances())

    def xcom(self, key: str) -> Any:
        """Return an XCom of the task; None when there is none."""
        path = f"{self._path}/taskInstances/{TASK}/xcomEntries/{key}"
        answer = self.airflow.client.get(path, params={"deserialize": True})
        return answer.json()["value"] if answer.status_code == 200 else None

    def log(self) -> str:
        """Return what all tries have logged."""
        tries = range(1, self.tries() + 1)
        lines = [self.airflow.task_log(self.event.dag_id, self.run_id, TASK, number) for number in tries]
        return "\n".join(line for log in lines for line in log)

    def given(self) -> list[JSON]:
        """Return what the task downstream was given, in the order of time."""
        return (
            [json.loads(line) for line in self.deliveries.read_text().splitlines()] if self.deliveries.exists() else []
        )

    def created(self) -> list[JSON]:
        """Return all Experiments that the task has ever had."""
        indexes = range(self.event.mapped) if self.event.mapped else (-1,)
        who = [identity(self.event.dag_id, TASK, run_id, index) for run_id in self.run_ids for index in indexes]
        return [one for each in who for one in self.place.census.created(each)]

    def experiments(self) -> list[JSON]:
        return self._objects("apis/kubeflow.org/v1beta1", "experiments")

    def seen(self) -> Seen:
        experiments = self.experiments()
        return Seen(
            state=self.state(),
            created=len(self.created()),
            left=tuple(sorted(map(last_condition, experiments))),
            results=len(self.given()),
            orphans=tuple(self._orphans(experiments)),
            processes=len(processes(str(self.gate))),
        )

    def settled(self) -> Seen:
        """Return what is seen when nothing runs any more, or has gone on for too long."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while ((seen := self.seen()).orphans or seen.processes) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return seen

    def _trigger_runs(self, instance: JSON) -> bool:
        """Tell whether there is a log of the trigger of this try."""
        folder = self.airflow.home / "logs" / f"dag_id={self.event.dag_id}" / f"run_id={instance['dag_run_id']}"
        folder /= f"task_id={TASK}" + ("" if instance["map_index"] < 0 else f"/map_index={instance['map_index']}")
        return any(folder.glob(f"attempt={instance['try_number']}.log.trigger.*"))

    def _objects(self, group: str, plural: str) -> list[JSON]:
        answer = self.place.http.get(f"/{group}/namespaces/{self.place.namespace}/{plural}")
        found: list[JSON] = answer.raise_for_status().json()["items"]
        return found

    def _orphans(self, experiments: list[JSON]) -> list[str]:
        trials = self._objects("apis/kubeflow.org/v1beta1", "trials")
        made = [*experiments, *trials, *self._objects("apis/batch/v1", "jobs"), *self._objects("api/v1", "pods")]
        return [one["metadata"]["name"] for one in made if not has_ended(one)]


def _ask(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    except httpx.TransportError:
        return None  # Airflow is busy, or the control plane was just killed.


def _trials(experiment: JSON) -> tuple[int, int]:
    """Return how many have succeeded, and how many there are."""
    status = experiment.get("status") or {}
    return int(status.get("trialsSucceeded") or 0), int(status.get("trials") or 0)


def _worker_is_done(instance: JSON) -> str:
    """Return what the scheduler logs once it has heard that."""
    key = [f"{name}={instance[name]!r}" for name in ("dag_id", "task_id")] + [f"run_id={instance['dag_run_id']!r}"]
    key += [f"{name}={instance[name]}" for name in ("try_number", "map_index")]
    return f"state success for task instance TaskInstanceKey({', '.join(key)})"
