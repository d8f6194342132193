"""The Suggestion controller: draws as many parameter sets as are requested.

Differs from Katib: the algorithm runs in this process, so nothing has to be waited for and gRPC tells of health
only; the objects of the service are there all the same, and the conditions come in the same order.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_llmtune.controlplane.algorithms import catalog, median_stop
from airflow_llmtune.controlplane.algorithms.request import Reply, SearchAlgorithm
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, SUGGESTION, TRIAL, Kind
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import (
    early_stopping,
    population_volume,
    suggestion_search,
    suggestion_status,
    suggestion_workload,
)
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_plan import EXPERIMENT_LABEL
from airflow_llmtune.controlplane.controllers.runtime import Controller, Key, is_left_behind

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.db_manager import DBManager

Object = dict[str, Any]
Result = TypeVar("Result")


_SEARCHES_AT_ONCE = 2
"""They wait for each other anyway; without a bound they would take all threads from logs and collectors."""


class ShortfallError(Exception):
    """Strict: the algorithm has fewer parameter sets than are requested."""


class SuggestionController(Controller):
    """``volumes`` is where the kubelet keeps what persistent volume claims hold."""

    kind = SUGGESTION
    owns = (TRIAL, *suggestion_workload.KINDS)

    def __init__(
        self, registry: Registry, clock: Clock, db_manager: DBManager, volumes: Path, *, strict: bool = False
    ) -> None:
        super().__init__(registry)
        self._clock = clock
        self._db_manager = db_manager
        self._volumes = volumes
        self._strict = strict
        self._algorithms: dict[str, SearchAlgorithm] = {}
        self._searches = asyncio.Semaphore(_SEARCHES_AT_ONCE)

    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        """A Trial's end may be what an algorithm waits for that has given less than was requested."""
        if kind != TRIAL:
            return super().keys_for(kind, obj)
        name = (obj["metadata"].get("labels") or {}).get(EXPERIMENT_LABEL, "")
        key = (obj["metadata"]["namespace"], name)
        entry = self.registry.store.get(SUGGESTION, *key)
        return [key] if entry is not None and _missing(entry.view) > 0 else []

    async def reconcile(self, namespace: str, name: str) -> float | None:
        suggestion = self.registry.find(SUGGESTION, namespace, name)
        experiment = self.registry.find(EXPERIMENT, namespace, name)
        if suggestion is None or experiment is None or is_left_behind(suggestion, experiment):
            return None
        if "deletionTimestamp" in suggestion["metadata"]:
            return None  # Its objects are going, and must not come back.
        if suggestion_status.is_completed(suggestion):
            if has_condition(suggestion, "Succeeded"):
                suggestion_workload.remove(self.registry, suggestion)
            return None
        before = copy.deepcopy(suggestion.get("status"))
        try:
            await self._advance(suggestion, experiment)
        except Exception:
            self._write_conditions(suggestion, before)
            raise
        if suggestion["status"] != before:
            self._write(suggestion, before)
        return None

    async def _advance(self, suggestion: Object, experiment: Object) -> None:
        """One step; its write brings us back for the next."""
        now = timestamp(self._clock())
        if not has_condition(suggestion, "Created"):
            suggestion_status.mark_created(suggestion, now)
        elif not suggestion_workload.ensure(self.registry, suggestion):
            suggestion_status.mark_not_ready(suggestion, now)
        else:
            suggestion_status.mark_ready(suggestion, now)
            await self._search(suggestion, experiment, now)

    async def _search(self, suggestion: Object, experiment: Object, now: str) -> None:
        if has_condition(suggestion, "Running") and _missing(suggestion) <= 0:
            return
        algorithm = await self._algorithm(suggestion["spec"]["algorithm"]["algorithmName"])
        trials = self._trials(suggestion, experiment)
        if not has_condition(suggestion, "Running"):
            if not await self._is_valid(suggestion, experiment, algorithm, now):
                return
            suggestion_status.mark_running(suggestion, now)
        if _missing(suggestion) > 0:
            await self._draw(suggestion, experiment, algorithm, trials)

    async def _algorithm(self, name: str) -> SearchAlgorithm:
        if name not in self._algorithms:
            self._algorithms[name] = await self._in_thread(catalog.load, name)
        return self._algorithms[name]

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        async with self._searches:
            return await asyncio.to_thread(work, *arguments)

    async def _is_valid(self, suggestion: Object, experiment: Object, algorithm: SearchAlgorithm, now: str) -> bool:
        """Asked once, before the search begins and when it begins again."""
        call = "ValidateAlgorithmSettings"
        try:
            settings = suggestion_search.own_settings(suggestion)
            request = suggestion_search.search_request(suggestion, experiment, (), settings, strict=self._strict)
            await self._in_thread(algorithm.validate, request)
            call = "ValidateEarlyStoppingSettings"
            median_stop.validate(early_stopping.settings_of(suggestion))
        except InvalidSettingsError as error:
            suggestion_status.mark_invalid(suggestion, call, str(error), now)
            return False
        return True

    def _trials(self, suggestion: Object, experiment: Object) -> list[Object]:
        """Differs from Katib unless strict: there also those of an Experiment of the same name in another namespace."""
        metadata = experiment["metadata"]
        if self._strict:
            return self.registry.list(TRIAL, label_selector=f"{EXPERIMENT_LABEL}={metadata['name']}")[0]
        names = [one["name"] for one in suggestion["status"].get("suggestions", ())]
        # By name: there may be thousands of others.
        found = [self.registry.find(TRIAL, metadata["namespace"], name) for name in names]
        return [trial for trial in found if trial is not None]

    async def _draw(
        self, suggestion: Object, experiment: Object, algorithm: SearchAlgorithm, trials: list[Object]
    ) -> None:
        missing, objective = _missing(suggestion), experiment["spec"]["objective"]
        settings = suggestion_search.overlaid_settings(suggestion)
        request = suggestion_search.search_request(suggestion, experiment, trials, settings, strict=self._strict)
        reply = await self._in_thread(algorithm.suggest, request, missing)
        if self._strict and len(reply.suggested) != missing:
            raise ShortfallError("The response contains unexpected trials")
        rules = early_stopping.rules_for(suggestion, objective, trials, self._db_manager, strict=self._strict)
        await self._prepare_volume(suggestion, reply)
        status = suggestion["status"]
        made = suggestion_search.assignments_of(suggestion, reply.suggested, rules)
        if made:
            status["suggestions"] = [*status.get("suggestions", ()), *made]
            status["suggestionCount"] = len(status["suggestions"])
        suggestion_status.keep_settings(suggestion, reply.state, ended=reply.ended and not self._strict)

    async def _prepare_volume(self, suggestion: Object, reply: Reply) -> None:
        metadata, spec = suggestion["metadata"], suggestion["spec"]
        if spec["algorithm"]["algorithmName"] == "pbt":
            claim = self._volumes / metadata["namespace"] / suggestion_workload.name_of(suggestion)
            await asyncio.to_thread(population_volume.prepare, claim / metadata["name"], reply.suggested)

    def _write(self, suggestion: Object, before: Object | None) -> None:
        """While the algorithm was at work more may have been requested; nothing else may have changed."""
        fresh = self.registry.find(SUGGESTION, suggestion["metadata"]["namespace"], suggestion["metadata"]["name"])
        if fresh is not None and fresh.get("status") == before and _is_the_same(fresh, suggestion):
            suggestion["metadata"]["resourceVersion"] = fresh["metadata"]["resourceVersion"]
        self.registry.update_status(SUGGESTION, suggestion)

    def _write_conditions(self, suggestion: Object, before: Object | None) -> None:
        """What was reached stands although the step failed; all else will be made again."""
        status = {**(before or {}), "conditions": suggestion.get("status", {}).get("conditions", [])}
        if status != before:
            self._write({**suggestion, "status": status}, before)


def _missing(suggestion: Mapping[str, Any]) -> int:
    requests: int = suggestion["spec"]["requests"]
    return requests - int(suggestion.get("status", {}).get("suggestionCount", 0))


def _is_the_same(fresh: Object, suggestion: Object) -> bool:
    """The same object, and no fewer parameter sets wanted than it now has."""
    return bool(
        fresh["metadata"]["uid"] == suggestion["metadata"]["uid"]
        and fresh["spec"]["requests"] >= suggestion["status"].get("suggestionCount", 0)
    )
