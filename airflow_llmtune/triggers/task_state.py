"""The state of a task as Airflow has it now: whoever is about to stop something asks first whether it is waited for."""

from __future__ import annotations

from typing import Any

__all__ = ["ENDED_STATES", "task_state"]

# Nobody will come back for the object; in any other state a try of the task, this one or the next, owns the decision.
ENDED_STATES = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})


def task_state(ti: Any) -> str:
    """
    Ask Airflow for the state of a task instance; ``cleared`` stands for none, ``removed`` for no such task instance.

    :param ti: anything with ``dag_id``, ``task_id``, ``run_id`` and ``map_index``.
    """
    # Imported here: it loads the task runner, which a DAG file has no use for.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if ti.map_index is None else ti.map_index
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    key = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    state = (states.get(ti.run_id) or {}).get(key, "removed")
    # A task that was cleared has no state until it is scheduled again.
    return "cleared" if state is None else str(state)
