"""The one lifecycle: create or adopt, wait without a worker, read the outcome, return the result or say why not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import (
    InvalidSpecError,
    KubernetesApiError,
    LLMTuneError,
    OutcomeError,
    WaitTimeoutError,
)
from airflow_llmtune.resources import pod
from airflow_llmtune.resources.meta import (
    ATTEMPT_LABEL,
    DELIVERED_ANNOTATION,
    OWNER_ANNOTATION,
    Outcome,
    ResourceKind,
    identity_selector,
    object_name,
    owner_labels,
)
from airflow_llmtune.triggers.base import API_UNREACHABLE, WAIT_TIMEOUT, OnKillAction, WaitTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.kubeflow import KubeflowClient, KubeflowHook

__all__ = ["KubeflowOperator"]

JSON = dict[str, Any]
LOG_TAIL_LINES = 20


class KubeflowOperator(BaseOperator):
    """
    Creates one Kubernetes object, waits for its end, and returns its result.

    The object's name follows from dag, task, run, map index and attempt, and its labels say whose it is. So a retry, or
    a worker lost between create and defer, adopts what runs; a finished object whose result Airflow has not stored is
    used; after a failed one, or a clear by a human, the next attempt starts.

    :param namespace: namespace of the object; default: the connection's, else ``default``.
    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param config_file: path of a kubeconfig; goes before the connection.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the service account of the pod in which Airflow runs.
    :param deferrable: wait in the triggerer; otherwise the same coroutine waits in the worker.
    :param poll_interval: seconds between reads where the service account may list but not watch.
    :param api_retry_timeout: seconds for which an unreachable API server is retried.
    :param on_kill_action: ``delete`` or ``keep`` the object when the task is killed.
    :param wait_timeout: give up, and delete the object, this long after the task first started. Airflow's own
        ``execution_timeout`` is held in the same way while deferred.
    """

    template_fields: Sequence[str] = ("namespace", "kubernetes_conn_id", "config_file", "cluster_context")
    ui_color = "#e4f0e8"

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
        on_kill_action: OnKillAction = "delete",
        wait_timeout: timedelta | None = None,
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
        self.wait_timeout = wait_timeout
        self._created: JSON | None = None

    # What a kind adds.

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        """The trigger that waits for this kind of object; known after rendering."""
        raise NotImplementedError

    def build_manifest(self, name: str, namespace: str, labels: dict[str, str], annotations: dict[str, str]) -> JSON:
        """
        Turn the rendered arguments into the object to create.

        :raises InvalidSpecError: with every mistake found; nothing was created.
        """
        raise NotImplementedError

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        """Return the XCom value of an object that succeeded; finite numbers only."""
        raise NotImplementedError

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        """Build the error of an object that failed, with the reasons that its pods give."""
        raise NotImplementedError

    async def stop_leftovers(self, client: KubeflowClient, obj: JSON) -> None:
        """Stop what a finished object has left running; nothing, for most kinds."""

    # The lifecycle.

    @property
    def kind(self) -> ResourceKind:
        return self.trigger_class.kind

    def execute(self, context: Context) -> JSON:
        obj, namespace = self._run(self._create_or_adopt(context))
        self._created = obj
        trigger = self._trigger(obj, namespace, context)
        outcome = self.trigger_class.read_outcome(obj)
        if not outcome.finished:
            if self.deferrable:
                self.defer(trigger=trigger, method_name=self.execute_complete.__name__)
            outcome = self._run(trigger.wait())
        event = outcome.to_event(trigger.name, trigger.namespace, trigger.uid)
        return self.execute_complete(context, event)

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Read the finished object; runs in a worker again after the trigger has fired."""
        result: JSON = self._run(self._finish(event, _epoch(context)))
        return result

    def on_kill(self) -> None:
        """Delete the object when the task is killed in a worker; while deferred, the trigger does it."""
        if self._created is None or self.on_kill_action == "keep":
            return
        metadata = self._created["metadata"]
        self._run(self._delete(metadata["namespace"], metadata["name"], metadata["uid"]))
        self.log.info("%s %s deleted: the task was killed", self.kind.kind, metadata["name"])

    @cached_property
    def hook(self) -> KubeflowHook:
        # Imported here: at DAG-parse time nobody needs a Kubernetes client.
        from airflow_llmtune.hooks.kubeflow import KubeflowHook

        return KubeflowHook(
            self.kubernetes_conn_id,
            config_file=self.config_file,
            cluster_context=self.cluster_context,
            in_cluster=self.in_cluster,
            api_retry_timeout=self.api_retry_timeout,
        )

    def _run(self, coroutine: Any) -> Any:
        try:
            return asyncio.run(coroutine)
        except InvalidSpecError as error:
            # A retry cannot mend the input.
            raise AirflowFailException(str(error)) from error

    async def _create_or_adopt(self, context: Context) -> tuple[JSON, str]:
        ti = context["ti"]
        who = (ti.dag_id, ti.task_id, ti.run_id, ti.map_index if ti.map_index is not None else -1)
        namespace = self.namespace or await self.hook.default_namespace()
        annotations = {OWNER_ANNOTATION: str(ti.id)}
        # Built before the API server is asked, so that wrong input is reported even when it is out of reach.
        self.build_manifest(object_name(*who, 1), namespace, owner_labels(*who, 1), annotations)
        async with self.hook.connect() as client:
            previous, _ = await client.list_all(self.kind, namespace, label_selector=identity_selector(*who))
            latest = max(previous, key=_attempt, default=None)
            if latest is not None and self._is_usable(latest, _epoch(context)):
                self.log.info("Adopting %s %s of an earlier try", self.kind.kind, latest["metadata"]["name"])
                return await self._own(client, latest, annotations), namespace
            attempt = 1 if latest is None else _attempt(latest) + 1
            manifest = self.build_manifest(
                object_name(*who, attempt), namespace, owner_labels(*who, attempt), annotations
            )
            obj, created = await client.create_or_adopt(self.kind, namespace, manifest)
            self.log.info(
                "%s %s %s in namespace %s",
                "Created" if created else "Adopted",
                self.kind.kind,
                obj["metadata"]["name"],
                namespace,
            )
            return (obj if created else await self._own(client, obj, annotations)), namespace

    def _is_usable(self, obj: JSON, epoch: str) -> bool:
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp"):
            return False
        outcome = self.trigger_class.read_outcome(obj)
        # Delivered in this epoch, and yet the task runs again: its worker died before Airflow had stored the result.
        delivered_before = (metadata.get("annotations") or {}).get(DELIVERED_ANNOTATION, epoch) != epoch
        return not outcome.finished or (outcome.phase == "Succeeded" and not delivered_before)

    async def _own(self, client: KubeflowClient, obj: JSON, annotations: dict[str, str]) -> JSON:
        """Write the new owner on an adopted object, so that the earlier try's trigger leaves it alone."""
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": annotations}}
        return await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)

    def _trigger(self, obj: JSON, namespace: str, context: Context) -> WaitTrigger:
        metadata = obj["metadata"]
        return self.trigger_class(
            name=metadata["name"],
            namespace=namespace,
            uid=metadata["uid"],
            kubernetes_conn_id=self.kubernetes_conn_id,
            config_file=self.config_file,
            cluster_context=self.cluster_context,
            in_cluster=self.in_cluster,
            poll_interval=self.poll_interval,
            api_retry_timeout=self.api_retry_timeout,
            deadline=self._deadline(context),
            on_kill_action=self.on_kill_action,
        )

    def _deadline(self, context: Context) -> float | None:
        limits = [limit for limit in (self.wait_timeout, self.execution_timeout) if limit is not None]
        if not limits:
            return None
        start = context["ti"].start_date
        # Airflow keeps the start of a task over its deferral, so the deadline does not move when it resumes.
        return (start.timestamp() if start is not None else time.time()) + min(limits).total_seconds()

    async def _finish(self, event: JSON, epoch: str) -> JSON:
        outcome = Outcome.from_event(event)
        name, namespace, uid = event["name"], event["namespace"], event["uid"]
        if outcome.reason == API_UNREACHABLE:
            raise KubernetesApiError(outcome.message, reason=API_UNREACHABLE)
        async with self.hook.connect() as client:
            if outcome.reason == WAIT_TIMEOUT:
                await self._time_out(client, outcome, name, namespace, uid)
            obj = await client.find(self.kind, namespace, name)
            if obj is None or obj["metadata"]["uid"] != uid:
                raise OutcomeError(f"{self.kind.kind} {name} in namespace {namespace} is gone: {outcome.message}")
            await self.stop_leftovers(client, obj)
            if outcome.phase != "Succeeded":
                raise await self.explain_failure(client, obj, outcome)
            result = await self.read_result(client, obj)
            # After a clear the task starts afresh instead of finding this result.
            await client.patch(self.kind, namespace, name, {"metadata": {"annotations": {DELIVERED_ANNOTATION: epoch}}})
            return result

    async def _time_out(
        self, client: KubeflowClient, outcome: Outcome, name: str, namespace: str, uid: str
    ) -> NoReturn:
        if self.on_kill_action == "delete":
            await client.delete(self.kind, namespace, name, uid=uid)
        raise WaitTimeoutError(outcome.message)

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        async with self.hook.connect() as client:
            await client.delete(self.kind, namespace, name, uid=uid)

    async def read_pods(self, client: KubeflowClient, namespace: str, selector: str) -> list[JSON]:
        """Return the pods that a selector finds, oldest first."""
        pods, _ = await client.list_all(pod.KIND, namespace, label_selector=selector)
        return sorted(pods, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))

    async def explain_pods(self, client: KubeflowClient, namespace: str, selector: str) -> list[str]:
        """Say why pods failed or cannot start, each with the last lines that it printed."""
        reasons = []
        try:
            for item in await self.read_pods(client, namespace, selector):
                if (reason := pod.read_failure(item)) is not None:
                    tail = await self._log_tail(client, item)
                    reasons.append(reason + (f"\n    last lines of its log:\n{tail}" if tail else ""))
        except LLMTuneError as error:
            # The diagnosis must not hide the failure that it explains.
            reasons.append(f"its pods could not be read: {error}")
        return reasons

    async def _log_tail(self, client: KubeflowClient, item: JSON) -> str:
        metadata = item["metadata"]
        container = pod.log_container(item)
        try:
            text = await client.read_log(metadata["namespace"], metadata["name"], container, tail_lines=LOG_TAIL_LINES)
        except KubernetesApiError:
            # A container that never started has no log; its reason says all there is.
            return ""
        return "\n".join(f"      {line}" for line in text.splitlines())


def _epoch(context: Context) -> str:
    """
    Name the time between two clears of a task.

    A retry leaves ``max_tries`` as it is; a clear by a human moves it beyond all tries so far.
    """
    return str(context["ti"].max_tries)


def _attempt(obj: JSON) -> int:
    return int(obj["metadata"]["labels"][ATTEMPT_LABEL])
