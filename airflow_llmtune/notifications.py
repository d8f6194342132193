"""What is done about a run that is late."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["log_missed_deadline"]

log = logging.getLogger(__name__)


async def log_missed_deadline(context: dict[str, Any], **kwargs: Any) -> None:  # noqa: ARG001 (Airflow's signature)
    """
    Log which run has missed its deadline, as an error; for ``AsyncCallback`` of a ``DeadlineAlert``.

    Any notifier of Airflow takes its place; this one needs no service.
    """
    run = context.get("dag_run") or {}
    log.error("DAG run %s of %s has missed its deadline", run.get("dag_run_id"), run.get("dag_id"))
