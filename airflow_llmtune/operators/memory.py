"""What a task instance remembers over its tries: when it first started, and a result whose object is about to go."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_llmtune.operators.claim import Claim

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TaskMemory"]

JSON = dict[str, Any]
KEY = "airflow_llmtune"
log = logging.getLogger(__name__)


class TaskMemory:
    """
    The task's part of Airflow's ``task_state_store``, which outlives retries and clears; available in a worker only.

    Nothing fails for want of it: without it a retry starts with a new deadline, and objects are kept.

    :param adopts: what was kept before a human cleared the task still counts.
    """

    def __init__(self, context: Context, claim: Claim, *, adopts: bool = False) -> None:
        self._store = context.get("task_state_store")
        self._claim = claim
        # A first try has nothing to remember but what a run of the same name left that was deleted.
        kept = {} if claim.is_first else self._read()
        self._is_new_epoch = kept.get("epoch") != claim.epoch
        self._kept: JSON = {} if self._is_new_epoch and not adopts else kept

    def first_start(self, now: datetime | None) -> datetime:
        """
        Return when the first try since the last clear started.

        :param now: start of this try; None: this moment.
        """
        kept = None if self._is_new_epoch else self._kept.get("first_start")
        if kept is not None:
            return datetime.fromisoformat(kept)
        start = now or datetime.now(UTC)
        self._write(first_start=start.isoformat())
        return start

    def result(self, fingerprint: str | None) -> JSON | None:
        """
        Return the result that was kept.

        :param fingerprint: of what is asked for now; None: whatever was.
        """
        if self._kept.get("result") is None or fingerprint not in {None, self._kept["fingerprint"]}:
            return None
        result: JSON = self._kept["result"]
        return result

    def keep(self, result: JSON, fingerprint: str | None) -> bool:
        """Keep a result until the next clear; tell whether that went well."""
        return self._write(result=result, fingerprint=fingerprint)

    def _read(self) -> JSON:
        if self._store is None:
            return {}
        try:
            kept = self._store.get(KEY)
        except Exception as error:  # noqa: BLE001 (the errors differ between a worker, dag.test() and state backends)
            log.warning("What earlier tries remember could not be read: %s", error)
            return {}
        return kept if isinstance(kept, dict) else {}

    def _write(self, **news: Any) -> bool:
        if self._store is None:
            return False
        self._kept = {**self._kept, **news, "epoch": self._claim.epoch}
        try:
            self._store.set(KEY, self._kept)
        except Exception as error:  # noqa: BLE001 (as above)
            log.warning("What the next try should remember could not be written: %s", error)
            return False
        return True
