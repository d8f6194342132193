"""The one lifecycle: create or adopt, wait without a worker, read the outcome, return the result or say why not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_llmtune.exceptions import (
    KubernetesApiError,
    OutcomeError,
    StalledError,
    WaitTimeoutError,
)
from airflow_llmtune.operators.claim import UNUSABLE, Claim, attempt_of
from airflow_llmtune.operators.manifest import with_metadata
from airflow_llmtune.operators.model_asset import tell_outlets
from airflow_llmtune.operators.waiting import WaitingOperator
from airflow_llmtune.resources.meta import (
    DELIVERED_ANNOTATION,
    OWNER_ANNOTATION,
    SETTLED_LABEL,
    Outcome,
    Problems,
    ResourceKind,
    path,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import OnKillAction, WaitTrigger

__all__ = ["KubeflowOperator"]

JSON = dict[str, Any]


class KubeflowOperator(WaitingOperator):
    """
    Creates one Kubernetes object, waits for its end, and returns its result.

    The object's name follows from dag, task, run, map index and attempt, and its labels say whose it is. So a retry, or
    a worker lost between create and defer, adopts what runs; a finished object whose result Airflow has not stored is
    used; after a failed one, a clear by a human or changed arguments the next attempt starts.

    :param on_kill_action: ``delete`` or ``keep`` the object when the task is killed.
    :param stall_timeout: give up when the object gets no further for so long. Trials that begin and end are progress,
        and a TrainJob's steps; of another job only that its pods start and end, so there it has to be longer than the
        training takes.

    Its ``wait_timeout`` counts from the object's creation. When the task gives up, the object is deleted unless
    ``on_kill_action`` is ``keep``. The other arguments are those of
    :class:`~airflow_llmtune.operators.waiting.WaitingOperator`.
    """

    on_kill_actions = ("delete", "keep")

    def __init__(
        self,
        *,
        on_kill_action: OnKillAction = "delete",
        stall_timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(on_kill_action=on_kill_action, **kwargs)
        self.stall_timeout = stall_timeout
        self._result: JSON | None = None

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

    def read_sources(self) -> dict[str, str | None]:
        """Return the addresses of what the task reads, by ``model``, ``dataset`` and ``adapter``."""
        return {}

    async def rehearse(self, client: KubeflowClient, namespace: str, manifest: JSON) -> None:
        """Find out what only the API server can tell of an object that is about to be created; nothing, for most."""

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
        created = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
        trigger = self._trigger(obj, self._deadline(created, context))
        outcome = self.trigger_class.read_outcome(obj)
        if not outcome.finished:
            outcome = self.wait(trigger)
        return self.execute_complete(context, outcome.to_event(trigger.name, trigger.namespace, trigger.uid))

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Read the finished object; runs in a worker again after the trigger has fired."""
        result: JSON = asyncio.run(self._finish(event, Claim.of(context)))
        self._result = result
        tell_outlets(context, self, result)
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 (the listener's signature)
        """Tell OpenLineage's listener what was read and written; only that listener calls this."""
        from airflow_llmtune.operators.lineage import openlineage_facets

        return None if self._result is None else openlineage_facets(self.read_sources(), self._result)

    async def abandon(self, claim: Claim) -> None:
        namespace = await self._find_namespace(self.build_manifest(Problems()))
        async with self.hook.connect() as client:
            found, _ = await client.list_all(self.kind, namespace, label_selector=claim.selector)
            for obj in found:
                metadata = obj["metadata"]
                if claim.owns(obj) and not self.trigger_class.read_outcome(obj).finished:
                    await client.delete(self.kind, namespace, metadata["name"], uid=metadata["uid"])
                    self.log.info("%s %s deleted: the task was ended", self.kind.kind, metadata["name"])

    def _checked_manifest(self) -> JSON:
        problems = Problems()
        self._check_waiting(problems)
        if self.stall_timeout is not None:
            problems.duration("stall_timeout", self.stall_timeout, "timedelta(hours=2)")
        manifest = self.build_manifest(problems)
        given = path(manifest, "metadata", "namespace")
        if self.namespace and given and given != self.namespace:
            rule = f"is not the manifest's own, {given!r}"
            problems.add("namespace", self.namespace, rule, "leave one of the two out")
        self._raise_problems(problems)
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
            await self.rehearse(client, namespace, ours)
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
            deadline=deadline,
            stall_timeout=None if self.stall_timeout is None else self.stall_timeout.total_seconds(),
            **self._connection(),
        )

    async def _finish(self, event: JSON, claim: Claim) -> JSON:
        from airflow_llmtune.triggers.base import API_ERROR, OBJECT_DELETED, STALLED, WAIT_TIMEOUT

        outcome = Outcome.from_event(event)
        name, namespace, uid = event["name"], event["namespace"], event["uid"]
        where = f"{self.kind.kind} {name} in namespace {namespace}"
        if outcome.reason == API_ERROR:
            raise KubernetesApiError(outcome.message, reason=API_ERROR)
        async with self.hook.connect() as client:
            obj = await client.find(self.kind, namespace, name)
            if obj is None or obj["metadata"]["uid"] != uid:
                obj = None
            elif outcome.reason in {WAIT_TIMEOUT, STALLED, OBJECT_DELETED}:
                # It may have ended between the event and now; then its own outcome counts.
                now = self.trigger_class.read_outcome(obj)
                outcome = now if now.finished else outcome
            if outcome.reason in {WAIT_TIMEOUT, STALLED}:
                await self._give_up(client, outcome, obj)
            if obj is None:
                gone = f"{where} ended as {outcome.phase} and was deleted since"
                raise OutcomeError(outcome.message if outcome.reason == OBJECT_DELETED else gone)
            if outcome.reason == OBJECT_DELETED:
                raise KubernetesApiError(
                    f"{where} was not found while it was waited for, and is there. A retry adopts it"
                )
            await self.stop_leftovers(client, obj)
            if outcome.phase != "Succeeded":
                error = await self.explain_failure(client, obj, outcome)
                with suppress(KubernetesApiError):  # It must not hide why the object failed.
                    await self._deliver(client, obj, UNUSABLE)
                raise error
            try:
                result = await self.read_result(client, obj)
            except OutcomeError:
                await self._deliver(client, obj, UNUSABLE)
                raise
            await self._deliver(client, obj, claim.epoch)
            return result

    async def _deliver(self, client: KubeflowClient, obj: JSON, epoch: str) -> None:
        """Write on the object that it was read to its end: a later run of the task starts afresh, and nobody waits."""
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": {DELIVERED_ANNOTATION: epoch}, "labels": {SETTLED_LABEL: "true"}}}
        await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)

    async def _give_up(self, client: KubeflowClient, outcome: Outcome, obj: JSON | None) -> NoReturn:
        from airflow_llmtune.triggers.base import STALLED

        reasons: list[str] = []
        if obj is not None:
            metadata = obj["metadata"]
            reasons = await self.read_reasons(client, obj)
            if self.on_kill_action == "delete":
                await client.delete(self.kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        error = StalledError if outcome.reason == STALLED else WaitTimeoutError
        raise error("\n  ".join([outcome.message, *reasons]))
