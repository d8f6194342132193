"""What every operator that waits for Kubernetes has: a connection, a deadline, and an orderly way to give up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_llmtune.exceptions import LLMTuneError
from airflow_llmtune.operators.claim import Claim
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.task_state import task_state

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["WaitingOperator"]

JSON = dict[str, Any]
# What Airflow calls instead of execute_complete when a trigger failed or timed out, and its word for the latter.
TRIGGER_FAILED, TRIGGER_TIMEOUT = "__fail__", "Trigger timeout"
# The state of a task that was cleared while its worker ran.
RESTARTING = "restarting"
# The trigger's own deadline comes first; Airflow's is there for a trigger that never ran.
BACKSTOP_SECONDS = 120.0
KILL_SECONDS = 20.0


class WaitingOperator(ClusterConnection, BaseOperator):
    """
    Waits for one Kubernetes object, in the triggerer or in the worker.

    :param namespace: namespace of the object; default: the connection's, else ``default``.
    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param config_file: path of a kubeconfig; goes before the connection.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the service account of the pod in which Airflow runs.
    :param deferrable: wait in the triggerer; otherwise the same coroutine waits in the worker.
    :param poll_interval: seconds between reads where the service account may list but not watch.
    :param api_retry_timeout: seconds for which an unreachable API server is retried.
    :param on_kill_action: what becomes of the object when the task is killed.
    :param timeout: give up after this long. Airflow's own ``execution_timeout`` is held in the same way while
        deferred, counted from the try's start.
    """

    template_fields: Sequence[str] = ("namespace", "kubernetes_conn_id", "config_file", "cluster_context")
    ui_color = "#e4f0e8"
    # The first one does something when the task is killed; ``keep`` is one of them.
    on_kill_actions: ClassVar[Sequence[str]] = ("keep",)

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubernetes_conn_id: str | None = "kubernetes_default",
        config_file: str | None = None,
        cluster_context: str | None = None,
        in_cluster: bool | None = None,
        deferrable: bool = True,
        poll_interval: float = 30.0,
        api_retry_timeout: float = 300.0,
        on_kill_action: str = "keep",
        timeout: timedelta | None = None,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.namespace = namespace
        self.kubernetes_conn_id = kubernetes_conn_id
        self.config_file = config_file
        self.cluster_context = cluster_context
        self.in_cluster = in_cluster
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.api_retry_timeout = api_retry_timeout
        self.on_kill_action = on_kill_action
        self.timeout = timeout
        # Of the try that runs in this process.
        self._ti: Any = None
        self._claim: Claim | None = None

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        """The trigger that waits for this kind of object; known after rendering."""
        raise NotImplementedError

    async def abandon(self, claim: Claim) -> None:
        """Stop or undo what this try has begun: nobody waits for it any more, and the author does not keep it."""
        raise NotImplementedError

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Return the result; runs in a worker again after the trigger has fired."""
        raise NotImplementedError

    def resume_execution(self, next_method: str, next_kwargs: JSON | None, context: Context) -> Any:
        """Also stop what is left when Airflow gave up on the trigger; but keep it for a retry to adopt."""
        if next_method == TRIGGER_FAILED and self.on_kill_action != "keep":
            claim = self._begin(context)
            if (next_kwargs or {}).get("error") == TRIGGER_TIMEOUT or self._is_last_try:
                try:
                    asyncio.run(self.abandon(claim))
                except LLMTuneError as error:
                    # The failure of the trigger is the one to tell.
                    self.log.warning("What this task began could not be stopped: %s", error)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """
        Stop what this try created or adopted, when nobody will come back for it.

        Airflow also calls this when the worker itself is being shut down; then the next try adopts what runs. While
        the task is deferred, the trigger does this.
        """
        if self._claim is None or self.on_kill_action == "keep":
            return
        # Airflow calls this in a signal handler, possibly in the middle of our own event loop; hence a thread.
        stopping = threading.Thread(target=self._stop_if_ended, args=[self._claim], daemon=True)
        stopping.start()
        stopping.join(KILL_SECONDS)

    def _begin(self, context: Context) -> Claim:
        self._ti = context["ti"]
        self._claim = Claim.of(context)
        return self._claim

    @property
    def _is_last_try(self) -> bool:
        return bool(self._ti.try_number > self._ti.max_tries)

    def _stop_if_ended(self, claim: Claim) -> None:
        if self._comes_back():
            self.log.info("What this try began is kept: the task is not over")
        else:
            asyncio.run(self.abandon(claim))

    def _comes_back(self) -> bool:
        """Tell whether another try will decide what becomes of the object."""
        try:
            state = task_state(self._ti)
        except Exception as error:  # noqa: BLE001 (whatever Airflow's API raises)
            # A leak is found again by its labels; what was deleted in error is not.
            self.log.warning("The state of the task could not be read: %s", error)
            return True
        if state == RESTARTING:
            return self.adopts_cleared
        return state not in self.trigger_class.ended_states and not (state == "running" and self._is_last_try)

    @property
    def adopts_cleared(self) -> bool:
        """Tell whether a try after a clear goes on with what there is."""
        return True

    def wait(self, trigger: WaitTrigger) -> Outcome:
        """Return the outcome when there is one; the worker does not come back from here when the task defers."""
        if self.deferrable:
            self.defer(trigger=trigger, method_name=self.execute_complete.__name__, timeout=_backstop(trigger.deadline))
        return asyncio.run(trigger.wait(alone=True))

    def _check_waiting(self, problems: Problems) -> None:
        problems.choice("on_kill_action", self.on_kill_action, self.on_kill_actions)
        if self.timeout is not None:
            problems.duration("timeout", self.timeout, "timedelta(hours=6)")
        problems.namespace("namespace", self.namespace)
        problems.seconds("poll_interval", self.poll_interval, "30.0")
        if self.api_retry_timeout != 0:  # which asks once
            problems.seconds("api_retry_timeout", self.api_retry_timeout, "300.0")

    def _deadline(self, since: datetime | None, context: Context) -> float | None:
        """Return when the wait gives up, in seconds since the epoch; ``timeout`` counts from ``since``."""
        ends = []
        if self.timeout is not None and since is not None:
            ends.append(since + self.timeout)
        # Airflow keeps the start of a try over its deferral, so the deadline does not move when it resumes.
        if self.execution_timeout is not None and context["ti"].start_date is not None:
            ends.append(context["ti"].start_date + self.execution_timeout)
        return min(end.timestamp() for end in ends) if ends else None

    def _connection(self) -> JSON:
        """The trigger's arguments that say how to reach the cluster and how to wait."""
        return {
            "kubernetes_conn_id": self.kubernetes_conn_id,
            "config_file": self.config_file,
            "cluster_context": self.cluster_context,
            "in_cluster": self.in_cluster,
            "poll_interval": self.poll_interval,
            "api_retry_timeout": self.api_retry_timeout,
            "on_kill_action": self.on_kill_action,
        }


def _backstop(deadline: float | None) -> timedelta | None:
    return None if deadline is None else timedelta(seconds=max(deadline - time.time(), 0.0) + BACKSTOP_SECONDS)
