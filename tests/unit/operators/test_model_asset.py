from __future__ import annotations

from typing import Any

from airflow.sdk import Asset

from airflow_llmtune.operators.model_asset import ModelState
from asset_state import MemoryState

MODEL = Asset("model")
LINEAGE = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}


class BusyState(MemoryState):
    """Another task writes its own result right after our first write, from what it has read before."""

    def __init__(self) -> None:
        super().__init__()
        self.others: Any = [{"fingerprint": "other", "result": {}, "lineage": {}}]

    def set(self, key: str, value: Any) -> None:
        super().set(key, value)
        if self.others is not None:
            super().set(key, self.others)
            self.others = None


def test_a_result_is_kept_although_another_task_keeps_its_own_in_the_same_moment():
    store = BusyState()
    state = ModelState({"asset_state_store": {MODEL: store}}, MODEL)
    state.keep("evaluations", "ours", {"metrics": {"eval_loss": 1.0}}, LINEAGE)
    assert state.find("evaluations", "ours")["result"] == {"metrics": {"eval_loss": 1.0}}
    assert state.find("evaluations", "other") is not None
