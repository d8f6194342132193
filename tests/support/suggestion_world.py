"""The Suggestion controller on a real registry, with an Experiment that asks it for parameter sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.db_manager import DBManager
from objects import Object
from registries import settle

LABELS = {"katib.kubeflow.org/experiment": "exp"}


class World:
    """The controller on a real registry; the test plays the Experiment and Trial controllers."""

    def __init__(self, registry: Registry, clock: Clock, volumes: Path, *, strict: bool = False) -> None:
        self.registry = registry
        self.db_manager = DBManager()
        self.volumes = volumes
        self.controller = SuggestionController(registry, clock, self.db_manager, volumes, strict=strict)

    def ask(self, experiment: Object, requests: int, **spec: Any) -> None:
        experiment["spec"].update(spec)
        stored = self.registry.create(EXPERIMENT, experiment)
        wanted = ("algorithm", "earlyStopping", "resumePolicy")
        copied = {field: stored["spec"][field] for field in wanted if field in stored["spec"]}
        metadata = {"name": "exp", "namespace": "default", "ownerReferences": [owner_reference(EXPERIMENT, stored)]}
        self.registry.create(SUGGESTION, {"metadata": metadata, "spec": {**copied, "requests": requests}})

    def request(self, requests: int) -> None:
        suggestion = self.suggestion()
        suggestion["spec"]["requests"] = requests
        self.registry.update(SUGGESTION, suggestion)

    async def settle(self) -> Object:
        await settle(self.registry, lambda: self.controller.reconcile("default", "exp"))
        return self.suggestion()

    def suggestion(self) -> Object:
        return self.registry.get(SUGGESTION, "default", "exp")

    def suggestions(self) -> list[Object]:
        found: list[Object] = self.suggestion()["status"]["suggestions"]
        return found

    def end_trial(
        self, assignment: Object, value: str, *, state: str = "Succeeded", namespace: str = "default"
    ) -> None:
        """A Trial that has come to its end, made when there is none."""
        objective = self.registry.get(EXPERIMENT, "default", "exp")["spec"]["objective"]
        spec = {"objective": objective, "parameterAssignments": assignment["parameterAssignments"]}
        metadata = {"name": assignment["name"], "namespace": namespace, "labels": LABELS}
        trial = self.registry.create(TRIAL, {"metadata": metadata, "spec": spec})
        status: Object = {"conditions": [{"type": state, "status": "True", "reason": state}]}
        if value != "none":
            status["observation"] = {"metrics": [{"name": "loss", "min": value, "max": value, "latest": value}]}
        self.registry.update_status(TRIAL, {**trial, "status": status})

    def find(self, kind: Any, name: str) -> Object | None:
        return self.registry.find(kind, "default", name)


def algorithm(name: str, **settings: str) -> Object:
    listed = [{"name": key, "value": value} for key, value in settings.items()]
    return {"algorithmName": name, "algorithmSettings": listed}


def stepped(name: str = "lr") -> Object:
    return {"name": name, "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.9", "step": "0.1"}}
