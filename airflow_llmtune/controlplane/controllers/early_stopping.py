"""The early stopping service: the rules for new Trials, and the word of a collector that one has met them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.algorithms import median_stop
from airflow_llmtune.controlplane.apiserver.kinds import TRIAL
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import trial_status
from airflow_llmtune.controlplane.controllers.conditions import has_condition, set_condition, set_false

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.db_manager import DBManager

Object = dict[str, Any]


class EarlyStoppingService:
    """Differs from Katib unless ``strict``: there an early-stopped Trial stays Running and has no completionTime."""

    def __init__(self, registry: Registry, clock: Clock, *, strict: bool = False) -> None:
        self._registry = registry
        self._clock = clock
        self._strict = strict

    def set_trial_status(self, namespace: str, trial_name: str) -> None:
        """The Trial is EarlyStopped, unless it has ended otherwise; ApiError when there is none.

        To be called on the loop's thread.
        """
        trial = self._registry.get(TRIAL, namespace, trial_name)
        if trial_status.is_completed(trial):
            return
        now = timestamp(self._clock())
        if not self._strict:
            set_false(trial, "Running", now)
            trial.setdefault("status", {})["completionTime"] = now
        set_condition(trial, "EarlyStopped", "TrialEarlyStopped", "Trial is early stopped", now)
        self._registry.update_status(TRIAL, trial)


def settings_of(suggestion: Object) -> dict[str, str]:
    early_stopping = suggestion["spec"].get("earlyStopping") or {}
    return {one.get("name", ""): one.get("value", "") for one in early_stopping.get("algorithmSettings") or ()}


def rules_for(
    suggestion: Object, objective: Object, trials: Iterable[Object], db_manager: DBManager, *, strict: bool
) -> list[Object]:
    """What the next Trials are stopped by; nothing without early stopping or before enough Trials have succeeded."""
    if not suggestion["spec"].get("earlyStopping"):
        return []
    settings, metric = settings_of(suggestion), objective["objectiveMetricName"]
    means = []
    for trial in trials:
        if has_condition(trial, "Succeeded"):
            values = db_manager.values_of(trial["metadata"]["name"], metric)
            means.append(median_stop.early_mean(values, settings, strict=strict))
    known = [mean for mean in means if mean is not None]
    return median_stop.rules(known, settings, objective, strict=strict)
