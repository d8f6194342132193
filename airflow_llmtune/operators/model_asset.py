"""What a model's Airflow asset remembers over all runs: its champion, and what was tuned and trained last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Asset

from airflow_llmtune.exceptions import LLMTuneError
from airflow_llmtune.resources import champion
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

__all__ = ["ModelState", "lineage_of", "name_in_inlets", "suppress_events", "tell_outlets"]

JSON = dict[str, Any]
CHAMPION, HISTORY, SCHEMA = "champion", "champion_history", "schema_version"
KEPT_CHAMPIONS = 20
# Results kept of each kind; the value has to stay a small database row.
KEPT_RESULTS = 5
KEEPING_ROUNDS = 3
# A task's result as an event tells it: what a DAG that the asset starts has use for.
_EVENT_KEYS = (
    *("parameters", "metrics", "artifact_uri", "experiment", "trial", "job", "namespace", "manifest"),
    *("url", "revision", "lineage", "metric", "value", "reference", "degradation"),
)


class ModelState:
    """The asset's part of Airflow's ``asset_state_store``; available in a worker only."""

    def __init__(self, context: Context, asset: Asset) -> None:
        self._store = _store(context, asset)
        self._name = asset.name

    def champion(self) -> JSON | None:
        found = self._store.get(CHAMPION)
        if found is None:
            return None
        if not isinstance(found, dict) or found.get("schema_version") != champion.SCHEMA_VERSION:
            raise LLMTuneError(
                f"Asset {self._name!r} has under {CHAMPION!r} no champion of schema version {champion.SCHEMA_VERSION}. "
                f"Fix: delete the key in the asset's state, or upgrade this provider"
            )
        return cast("JSON", found)

    def crown(self, record: JSON, replacing: JSON | None) -> bool:
        """
        Write a new champion, unless another run has written one instead of the one to replace; tell whether it stands.

        The store cannot compare and write in one step, so this looks before and after.
        """
        if self.champion() != replacing:
            return False
        history: list[JSON] = list(self._store.get(HISTORY) or [])
        if replacing is not None and replacing["promoted_at"] not in [old["promoted_at"] for old in history]:
            self._set(HISTORY, [*history, champion.without(replacing, "manifest")][-KEPT_CHAMPIONS:])
        self._set(CHAMPION, record)
        return self.champion() == record

    def find(self, kind: str, fingerprint: str) -> JSON | None:
        """Return what was kept of the result with these inputs: ``{"fingerprint", "result", "lineage"}``."""
        kept: list[JSON] = self._store.get(kind) or []
        return next((entry for entry in reversed(kept) if entry["fingerprint"] == fingerprint), None)

    def keep(self, kind: str, fingerprint: str, result: JSON, lineage: JSON) -> None:
        entry = {"fingerprint": fingerprint, "result": champion.without(result, "samples"), "lineage": lineage}
        # The store cannot compare and write in one step, and another task may keep its result in the same moment.
        for _ in range(KEEPING_ROUNDS):
            kept: list[JSON] = self._store.get(kind) or []
            others = [one for one in kept if one["fingerprint"] != fingerprint]
            self._set(kind, [*others, entry][-KEPT_RESULTS:])
            there = self.find(kind, fingerprint)
            if there is not None and there["lineage"] == lineage:
                return

    def check(self) -> None:
        """Fail before anything runs whose result could not be kept: a missing state reads like an empty one."""
        if self._store.get(SCHEMA) is None:
            self._set(SCHEMA, champion.SCHEMA_VERSION)

    def _set(self, key: str, value: Any) -> None:
        try:
            self._store.set(key, value)
        except Exception as error:  # a worker and dag.test() raise different errors
            raise LLMTuneError(
                f"Airflow does not keep the state of asset {self._name!r}: {error}. "
                f"Fix: name the asset in `inlets` or `outlets` of a task of an active DAG, also beside `partial(...)`"
            ) from error


def name_in_inlets(operator: BaseOperator, asset: Any) -> None:
    """Have Airflow open the asset's state to the task: it does so to the tasks that name it."""
    if not isinstance(asset, Asset):
        problems = Problems()
        problems.add("model_asset", asset, "is no Airflow asset", 'give `Asset("my-model")`')
        # Told when the DAG is parsed: Airflow takes anything, and the task would fail only after all before it.
        problems.raise_if_any(f"Task {operator.task_id}")
    if asset not in [*operator.inlets, *operator.outlets]:
        operator.inlets.append(asset)


def lineage_of(context: Context) -> JSON:
    """Which try of which task of which run; ``run_after`` orders runs, backfills among them."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": -1 if ti.map_index is None else ti.map_index,
        "try_number": ti.try_number,
        "run_after": context["dag_run"].run_after.isoformat(),
    }


def tell_outlets(context: Context, operator: BaseOperator, result: JSON) -> None:
    """Put a result into the events of the task's outlets; to be called after a deferral, which loses what was put."""
    extra = {key: result[key] for key in _EVENT_KEYS if result.get(key) is not None}
    for outlet in operator.outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)


def suppress_events(operator: BaseOperator) -> None:
    """Let the task succeed without an asset event: what is scheduled by its outlets would run for nothing."""
    operator.outlets = []


def _store(context: Context, asset: Asset) -> Any:
    try:
        return context["asset_state_store"][asset]
    except KeyError:
        # Airflow looks for a mapped task's assets before it has made the task, so it misses those given as arguments.
        from airflow.sdk.execution_time.context import AssetStateStoreAccessor

        return AssetStateStoreAccessor(name=asset.name)
