"""The one lifecycle: create or adopt, wait without a worker, read the outcome, return the result or say why not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import (
    InvalidSpecError,
    KubernetesApiError,
    LLMTuneError,
    OutcomeError,
    WaitTimeoutError,
)
from airflow_llmtune.operators.claim import UNUSABLE, Claim, attempt_of
from airflow_llmtune.operators.manifest import with_metadata
from airflow_llmtune.resources.meta import DELIVERED_ANNOTATION, OWNER_ANNOTATION, Outcome, Problems, ResourceKind, path
from airflow_llmtune.triggers.base import API_ERROR, OBJECT_DELETED, WAIT_TIMEOUT, OnKillAction, WaitTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.kubeflow import KubeflowClient, KubeflowHook

__all__ = ["KubeflowOperator"]

JSON = dict[str, Any]
# What Airflow calls instead of execute_complete when a trigger failed or timed out, and its word for the latter.
TRIGGER_FAILED, TRIGGER_TIMEOUT = "__fail__", "Trigger timeout"
# The trigger's own deadline comes first; Airflow's is there for a trigger that never ran.
BACKSTOP_SECONDS = 120.0
KILL_SECONDS = 20.0


class KubeflowOperator(BaseOperator):
    """
    Creates one Kubernetes object, waits for its end, and returns its result.

    The object's name follows from dag, task, run, map index and attempt, and its labels say whose it is. So a retry, or
    a worker lost between create and defer, adopts what runs; a finished object whose result Airflow has not stored is
    used; after a failed one, a clear by a human or changed arguments the next attempt starts.

    :param namespace: namespace of the object; default: the connection's, else ``default``.
    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param config_file: path of a kubeconfig; goes before the connection.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the service account of the pod in which Airflow runs.
    :param deferrable: wait in the triggerer; otherwise the same coroutine waits in the worker.
    :param poll_interval: seconds between reads where the service account may list but not watch.
    :param api_retry_timeout: seconds for which an unreachable API server is retried.
    :param on_kill_action: ``delete`` or ``keep`` the object when the task is killed.
    :param wait_timeout: give up this long after the object was created, and delete it unless ``on_kill_action`` is
        ``keep``. Airflow's own ``execution_timeout`` is held in the same way while deferred, counted from the try's
        start.
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
        self._claim: Claim | None = None

    # What a kind adds.

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        """The trigger that waits for this kind of object; known after rendering."""
        raise NotImplementedError

    def build_manifest(self, problems: Problems) -> JSON:
        """
        Turn the rendered arguments into the object to create; it gets its name and labels later.

        :param problems: takes every mistake; with any, the manifest is not used.
        """
        raise NotImplementedError

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        """Return the XCom value of an object that succeeded; finite numbers only."""
        raise NotImplementedError

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        """Build the error of an object that failed, with the reasons that its pods give."""
        raise NotImplementedError

    async def read_reasons(self, client: KubeflowClient, obj: JSON) -> list[str]:  # noqa: ARG002
        """Say, as far as pods and events tell it, why an object failed or does not get on."""
        return []

    async def stop_leftovers(self, client: KubeflowClient, obj: JSON) -> None:
        """Stop what a finished object has left running; nothing, for most kinds."""

    # The lifecycle.

    @property
    def kind(self) -> ResourceKind:
        return self.trigger_class.kind

    def execute(self, context: Context) -> JSON:
        claim = self._claim = Claim.of(context)
        manifest = self._checked_manifest()
        obj: JSON = asyncio.run(self._create_or_adopt(claim, manifest))
        deadline = self._deadline(obj, context)
        trigger = self._trigger(obj, deadline)
        outcome = self.trigger_class.read_outcome(obj)
        if not outcome.finished:
            if self.deferrable:
                self.defer(trigger=trigger, method_name=self.execute_complete.__name__, timeout=_backstop(deadline))
            outcome = asyncio.run(trigger.wait())
        return self.execute_complete(context, outcome.to_event(trigger.name, trigger.namespace, trigger.uid))

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Read the finished object; runs in a worker again after the trigger has fired."""
        result: JSON = asyncio.run(self._finish(event, Claim.of(context)))
        return result

    def resume_execution(self, next_method: str, next_kwargs: JSON | None, context: Context) -> Any:
        """Also stop what is left when Airflow gave up on the trigger; but keep it for a retry to adopt."""
        if next_method == TRIGGER_FAILED and self.on_kill_action == "delete":
            ti, claim = context["ti"], Claim.of(context)
            if (next_kwargs or {}).get("error") == TRIGGER_TIMEOUT or ti.try_number > ti.max_tries:
                try:
                    asyncio.run(self._delete_unfinished(claim))
                except LLMTuneError as error:
                    # The failure of the trigger is the one to tell.
                    self.log.warning("The %s could not be deleted: %s", self.kind.kind, error)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Delete what this try created or adopted; while deferred, the trigger does it."""
        if self._claim is None or self.on_kill_action == "keep":
            return
        # Airflow calls this in a signal handler, possibly in the middle of our own event loop; hence a thread.
        deletion = threading.Thread(target=asyncio.run, args=[self._delete_unfinished(self._claim)], daemon=True)
        deletion.start()
        deletion.join(KILL_SECONDS)

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

    def _checked_manifest(self) -> JSON:
        problems = Problems()
        problems.choice("on_kill_action", self.on_kill_action, get_args(OnKillAction))
        wait_timeout: Any = self.wait_timeout  # whatever the DAG's author gave
        if not isinstance(wait_timeout, timedelta | None):
            problems.add("wait_timeout", wait_timeout, "is no timedelta", "give timedelta(hours=6), say")
        manifest = self.build_manifest(problems)
        given = path(manifest, "metadata", "namespace")
        if self.namespace and given and given != self.namespace:
            rule = f"is not the manifest's own, {given!r}"
            problems.add("namespace", self.namespace, rule, "leave one of the two out")
        try:
            problems.raise_if_any(f"Task {self.task_id}")
        except InvalidSpecError as error:
            # A retry cannot mend the input.
            raise AirflowFailException(str(error)) from error
        return manifest

    async def _create_or_adopt(self, claim: Claim, manifest: JSON) -> JSON:
        namespace = await self._find_namespace(manifest)
        async with self.hook.connect() as client:
            previous, _ = await client.list_all(self.kind, namespace, label_selector=claim.selector)
            latest = max(previous, key=attempt_of, default=None)
            if latest is not None and self._is_usable(latest, claim, manifest):
                self.log.info("Adopting %s %s of an earlier try", self.kind.kind, latest["metadata"]["name"])
                return await self._own(client, latest, claim)
            if latest is not None:
                await self._delete_stale(client, latest)
            attempt = 1 if latest is None else attempt_of(latest) + 1
            ours = with_metadata(
                manifest, claim.name(attempt), namespace, claim.labels(attempt), claim.annotations(manifest)
            )
            obj, created = await client.create_or_adopt(self.kind, namespace, ours)
            done = "Created" if created else "Adopted"
            self.log.info("%s %s %s in namespace %s", done, self.kind.kind, obj["metadata"]["name"], namespace)
            return obj if created else await self._own(client, obj, claim)

    async def _find_namespace(self, manifest: JSON) -> str:
        return self.namespace or path(manifest, "metadata", "namespace") or await self.hook.default_namespace()

    def _is_usable(self, obj: JSON, claim: Claim, manifest: JSON) -> bool:
        if obj["metadata"].get("deletionTimestamp") or not claim.asked_for(obj, manifest):
            return False
        outcome = self.trigger_class.read_outcome(obj)
        return not outcome.finished or (outcome.phase == "Succeeded" and claim.may_use_result(obj))

    async def _delete_stale(self, client: KubeflowClient, obj: JSON) -> None:
        """Stop what still runs for arguments that have changed since."""
        metadata = obj["metadata"]
        if not self.trigger_class.read_outcome(obj).finished and not metadata.get("deletionTimestamp"):
            self.log.warning("Deleting %s %s: the arguments changed since", self.kind.kind, metadata["name"])
            await client.delete(self.kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    async def _own(self, client: KubeflowClient, obj: JSON, claim: Claim) -> JSON:
        """Write the new owner on an adopted object, so that the earlier try's trigger leaves it alone."""
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": {OWNER_ANNOTATION: claim.owner}}}
        return await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)

    def _trigger(self, obj: JSON, deadline: float | None) -> WaitTrigger:
        metadata = obj["metadata"]
        return self.trigger_class(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            kubernetes_conn_id=self.kubernetes_conn_id,
            config_file=self.config_file,
            cluster_context=self.cluster_context,
            in_cluster=self.in_cluster,
            poll_interval=self.poll_interval,
            api_retry_timeout=self.api_retry_timeout,
            deadline=deadline,
            on_kill_action=self.on_kill_action,
        )

    def _deadline(self, obj: JSON, context: Context) -> float | None:
        ends = []
        if self.wait_timeout is not None:
            ends.append(datetime.fromisoformat(obj["metadata"]["creationTimestamp"]) + self.wait_timeout)
        # Airflow keeps the start of a try over its deferral, so the deadline does not move when it resumes.
        if self.execution_timeout is not None and context["ti"].start_date is not None:
            ends.append(context["ti"].start_date + self.execution_timeout)
        return min(end.timestamp() for end in ends) if ends else None

    async def _finish(self, event: JSON, claim: Claim) -> JSON:
        outcome = Outcome.from_event(event)
        name, namespace, uid = event["name"], event["namespace"], event["uid"]
        if outcome.reason == API_ERROR:
            raise KubernetesApiError(outcome.message, reason=API_ERROR)
        async with self.hook.connect() as client:
            if outcome.reason == WAIT_TIMEOUT:
                await self._time_out(client, outcome, name, namespace, uid)
            obj = await client.find(self.kind, namespace, name)
            if obj is None or obj["metadata"]["uid"] != uid:
                gone = (
                    f"{self.kind.kind} {name} in namespace {namespace} ended as {outcome.phase} and was deleted since"
                )
                raise OutcomeError(outcome.message if outcome.reason == OBJECT_DELETED else gone)
            await self.stop_leftovers(client, obj)
            if outcome.phase != "Succeeded":
                raise await self.explain_failure(client, obj, outcome)
            try:
                result = await self.read_result(client, obj)
            except OutcomeError:
                await self._deliver(client, obj, UNUSABLE)
                raise
            await self._deliver(client, obj, claim.epoch)
            return result

    async def _deliver(self, client: KubeflowClient, obj: JSON, epoch: str) -> None:
        """Write on the object that its result was read, so that a later run of the task starts afresh."""
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": {DELIVERED_ANNOTATION: epoch}}}
        await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)

    async def _time_out(
        self, client: KubeflowClient, outcome: Outcome, name: str, namespace: str, uid: str
    ) -> NoReturn:
        obj = await client.find(self.kind, namespace, name)
        reasons: list[str] = []
        if obj is not None and obj["metadata"]["uid"] == uid:
            reasons = await self.read_reasons(client, obj)
        if self.on_kill_action == "delete":
            await client.delete(self.kind, namespace, name, uid=uid)
        raise WaitTimeoutError("\n  ".join([outcome.message, *reasons]))

    async def _delete_unfinished(self, claim: Claim) -> None:
        namespace = await self._find_namespace(self.build_manifest(Problems()))
        async with self.hook.connect() as client:
            found, _ = await client.list_all(self.kind, namespace, label_selector=claim.selector)
            for obj in found:
                metadata = obj["metadata"]
                if claim.owns(obj) and not self.trigger_class.read_outcome(obj).finished:
                    await client.delete(self.kind, namespace, metadata["name"], uid=metadata["uid"])
                    self.log.info("%s %s deleted: the task was ended", self.kind.kind, metadata["name"])


def _backstop(deadline: float | None) -> timedelta | None:
    return None if deadline is None else timedelta(seconds=max(deadline - time.time(), 0.0) + BACKSTOP_SECONDS)
