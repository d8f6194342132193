"""The one lifecycle: create or adopt, wait without a worker, read the outcome, return the result or say why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import (
    CannotStartError,
    KubernetesApiError,
    LLMTuneError,
    OutcomeError,
    OwnershipError,
    StalledError,
    WaitTimeoutError,
)
from airflow_llmtune.operators.claim import UNUSABLE, Claim, fingerprint_of
from airflow_llmtune.operators.memory import TaskMemory
from airflow_llmtune.operators.model_asset import tell_outlets
from airflow_llmtune.operators.owning import OwningOperator, Wanted
from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.operators.waiting import TRIGGER_FAILED, TRIGGER_TIMEOUT
from airflow_llmtune.resources.meta import DELIVERED_ANNOTATION, FINGERPRINT_ANNOTATION, SETTLED_LABEL, Outcome, path
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["KubeflowOperator"]

JSON = dict[str, Any]
ON_STALL = ("fail", "warn")
ON_FINISH_ACTIONS = ("keep", "delete", "delete_succeeded")


class Finished(NamedTuple):
    """A result, and the object it was read from; ``running`` when that goes on, and nobody waits for it any more."""

    result: JSON
    obj: JSON
    running: bool = False


class KubeflowOperator(OwningOperator):
    """
    Creates one Kubernetes object, waits for its end, and returns its result.

    :param on_finish_action: what becomes of a finished object: ``keep``, ``delete`` or ``delete_succeeded``.
    :param stall_timeout: the object has stalled when it gets no further for so long. Trials that begin and end are
        progress, and a TrainJob's steps; of another job only that its pods start and end, so there it has to be longer
        than the training takes.
    :param startup_timeout: it has stalled also when a pod cannot start for so long, for a reason that does not pass by
        itself, such as an image or a Secret that does not exist; None: never.
    :param on_stall: ``fail``, or ``warn`` in the task's log and go on waiting.

    ``timeout`` counts from the first start of the task since it was last cleared, over all its retries. Further
    arguments: :class:`~airflow_llmtune.operators.owning.OwningOperator`.
    """

    def __init__(
        self,
        *,
        on_finish_action: str = "keep",
        stall_timeout: timedelta | None = None,
        startup_timeout: timedelta | None = timedelta(minutes=10),
        on_stall: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_finish_action = on_finish_action
        self.stall_timeout = stall_timeout
        self.startup_timeout = startup_timeout
        self.on_stall = on_stall
        self._result: JSON | None = None

    # What a kind adds.

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        """Return the XCom value of an object that succeeded; finite numbers only."""
        raise NotImplementedError

    async def rescue(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> JSON | None:  # noqa: ARG002
        """Return the XCom value of one that did not succeed, where its author wants that; None: there is none."""
        return None

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        """Build the error of an object that failed, with the reasons that its pods give."""
        raise NotImplementedError

    async def read_reasons(self, client: KubeflowClient, obj: JSON) -> list[str]:
        """Say, as far as pods and events tell it, why an object failed or does not get on."""
        return await self.trigger_class.read_reasons(client, obj)

    def read_sources(self) -> dict[str, str | None]:
        """Return the addresses of what the task reads, by ``model``, ``dataset`` and ``adapter``."""
        return {}

    # The lifecycle.

    def execute(self, context: Context) -> JSON:
        claim = self._begin(context)
        with self._leaving_nothing(claim):
            manifest, memory = self._checked_manifest(), self._memory(context, claim)
            fingerprint = fingerprint_of(self.asked_for(manifest))
            kept = memory.result(None if self.on_stale == "adopt" else fingerprint)
            if kept is not None:
                self.log.info("The result of an earlier try is returned: Airflow did not store it")
                # That try may have died before it deleted what the result is of.
                asyncio.run(self._clear_away(claim, kept))
                return self._return(context, kept)
            start = memory.first_start(context["ti"].start_date) if self.timeout else None
            event = self._await_end(claim, Wanted(manifest, fingerprint, self._deadline(start, context)))
        return self.execute_complete(context, event)

    def _await_end(self, claim: Claim, wanted: Wanted) -> JSON:
        obj: JSON = asyncio.run(self._create_or_adopt(claim, wanted))
        trigger = self._trigger(obj, wanted.deadline)
        outcome = self.read_outcome(obj)
        if not outcome.finished:
            outcome = self.wait(trigger)
        return outcome.to_event(trigger.name, trigger.namespace, trigger.uid)

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Read the finished object; runs in a worker again after the trigger has fired."""
        claim = self._begin(context)
        with self._leaving_nothing(claim):
            return self._return(context, self._complete(context, event, claim))

    def _complete(self, context: Context, event: JSON, claim: Claim) -> JSON:
        try:
            finished: Finished = asyncio.run(self._finish(event, claim))
        except WaitTimeoutError as error:
            if self._is_time_over(context, claim):
                # No retry has any time left, and to start one would clear the XComs that tell the best so far.
                raise AirflowFailException(str(error)) from error
            raise
        if self._goes(finished):
            # First: a worker that dies before Airflow has the result must find it, and the object is gone by then.
            fingerprint = path(finished.obj, "metadata", "annotations", FINGERPRINT_ANNOTATION)
            is_kept = self._memory(context, claim).keep(finished.result, fingerprint)
            if finished.running or is_kept:
                asyncio.run(self._clear_away(claim, finished.result))
        return finished.result

    @contextmanager
    def _leaving_nothing(self, claim: Claim) -> Iterator[None]:
        """Stop what still runs when there is no other try: nobody comes back for it."""
        try:
            yield
        except (OutcomeError, OwnershipError):
            raise  # What has ended costs nothing, and what is another's is left alone.
        except (LLMTuneError, AirflowFailException) as error:
            if self.on_kill_action == "delete" and (self._is_last_try or isinstance(error, AirflowFailException)):
                self._stop_all(claim)
            raise

    def _stop_all(self, claim: Claim) -> None:
        try:
            asyncio.run(self._abandon(claim, claim.answers_for))
        except Exception as error:  # noqa: BLE001 (it must not hide why the task fails)
            self.log.warning("What this task began could not be stopped: %s", error)

    def resume_execution(self, next_method: str, next_kwargs: JSON | None, context: Context) -> Any:
        """Go on as after the trigger's own event when Airflow tells that it never came: the object may have ended."""
        if next_method == TRIGGER_FAILED and (next_kwargs or {}).get("error") == TRIGGER_TIMEOUT:
            event = asyncio.run(self._find_event(self._begin(context)))
            if event is not None:
                return self.execute_complete(context, event)
        return super().resume_execution(next_method, next_kwargs, context)

    async def _find_event(self, claim: Claim) -> JSON | None:
        from airflow_llmtune.triggers.base import WAIT_TIMEOUT

        async with self.hook.connect() as client:
            made = await self._find_made(client, await self._find_namespace(), claim)
        found = [obj for obj in made if claim.owns(obj)]
        if not found:
            return None
        metadata = found[-1]["metadata"]
        message = f"{self.kind.kind} {metadata['name']} did not finish before its deadline, and no triggerer told so"
        outcome = Outcome("Failed", WAIT_TIMEOUT, message)
        return outcome.to_event(metadata["name"], metadata["namespace"], metadata["uid"])

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 (the listener's signature)
        """Tell OpenLineage's listener what was read and written; only that listener calls this."""
        from airflow_llmtune.operators.lineage import openlineage_facets

        return None if self._result is None else openlineage_facets(self.read_sources(), self._result)

    def _return(self, context: Context, result: JSON) -> JSON:
        self._result = result
        tell_outlets(context, self, result)
        return result

    def _memory(self, context: Context, claim: Claim) -> TaskMemory:
        return TaskMemory(context, claim, adopts=self.adopts_cleared)

    def _is_time_over(self, context: Context, claim: Claim) -> bool:
        """Tell whether all tries have had their time; ``execution_timeout`` is that of each."""
        if self.timeout is None:
            return False
        return self._memory(context, claim).first_start(context["ti"].start_date) + self.timeout <= datetime.now(UTC)

    def _checked_manifest(self) -> JSON:
        problems = Problems()
        self._check_waiting(problems)
        manifest = self.build_manifest(problems)
        given = path(manifest, "metadata", "namespace")
        if self.namespace and given and given != self.namespace:
            rule = f"is not the manifest's own, {given!r}"
            problems.add("namespace", self.namespace, rule, "leave one of the two out")
        self._check_together(manifest, problems)
        fail_on(self, problems)
        return manifest

    def _check_together(self, manifest: JSON, problems: Problems) -> None:
        """Note which arguments do not fit to the manifest that the others made."""

    def _check_waiting(self, problems: Problems) -> None:
        super()._check_waiting(problems)
        problems.choice("on_finish_action", self.on_finish_action, ON_FINISH_ACTIONS)
        problems.choice("on_stall", self.on_stall, ON_STALL)
        for argument in ("stall_timeout", "startup_timeout"):
            if getattr(self, argument) is not None:
                problems.duration(argument, getattr(self, argument), "timedelta(hours=2)")

    def _trigger(self, obj: JSON, deadline: float | None) -> WaitTrigger:
        metadata = obj["metadata"]
        return self.trigger_class(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            deadline=deadline,
            stall_timeout=_seconds(self.stall_timeout),
            startup_timeout=_seconds(self.startup_timeout),
            on_stall=self.on_stall,
            **self._connection(),
        )

    # The object: finished, given up, deleted.

    async def _finish(self, event: JSON, claim: Claim) -> Finished:
        from airflow_llmtune.triggers.base import API_ERRORS, GIVEN_UP, OBJECT_DELETED

        outcome = Outcome.from_event(event)
        if outcome.reason in API_ERRORS:
            raise API_ERRORS[outcome.reason](outcome.message, reason=outcome.reason)
        async with self.hook.connect() as client:
            obj, outcome = await self._read_again(client, event, outcome)
            where = f"{self.kind.kind} {event['name']} in namespace {event['namespace']}"
            if obj is None:
                is_told = outcome.reason in {*GIVEN_UP, OBJECT_DELETED}
                gone = f"{where} ended as {outcome.phase} and was deleted since"
                raise self._given_up(outcome, outcome.message if is_told else gone)
            claim.check_not_superseded(obj)
            if outcome.reason == OBJECT_DELETED:
                raise KubernetesApiError(
                    f"{where} was not found while it was waited for, and is there. A retry adopts it"
                )
            await self.wrap_up(client, obj)
            if outcome.reason in GIVEN_UP:
                return await self._give_up(client, outcome, obj)
            return Finished(await self._read_ended(client, outcome, obj, claim), obj)

    async def _read_again(self, client: KubeflowClient, event: JSON, outcome: Outcome) -> tuple[JSON | None, Outcome]:
        """Return the object as it is now; one that ended between the event and now has its own outcome."""
        from airflow_llmtune.triggers.base import GIVEN_UP, OBJECT_DELETED

        obj = await client.find(self.kind, event["namespace"], event["name"])
        if obj is None or obj["metadata"]["uid"] != event["uid"] or obj["metadata"].get("deletionTimestamp"):
            return None, outcome
        now = self.read_outcome(obj)
        counts = now.finished and outcome.reason in {*GIVEN_UP, OBJECT_DELETED}
        return obj, now if counts else outcome

    async def _read_ended(self, client: KubeflowClient, outcome: Outcome, obj: JSON, claim: Claim) -> JSON:
        """Return the result of an object that has ended; what had none is marked, and its reasons are raised."""
        try:
            if outcome.phase != "Succeeded":
                result = await self.rescue(client, obj, outcome)
                if result is None:
                    raise await self.explain_failure(client, obj, outcome)
            else:
                result = await self.read_result(client, obj)
        except OutcomeError:
            with suppress(KubernetesApiError):  # It must not hide why the object failed.
                await self._deliver(client, obj, UNUSABLE)
                if self.on_finish_action == "delete":
                    await self._remove(client, obj, "it has failed")
            raise
        with suppress(KubernetesApiError):  # The result is at hand; without the mark a retry finds it as well.
            await self._deliver(client, obj, claim.epoch)
        return result

    async def _deliver(self, client: KubeflowClient, obj: JSON, epoch: str) -> None:
        """Write on the object that it was read to its end: a later run of the task starts afresh, and nobody waits."""
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": {DELIVERED_ANNOTATION: epoch}, "labels": {SETTLED_LABEL: "true"}}}
        await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)

    async def _give_up(self, client: KubeflowClient, outcome: Outcome, obj: JSON) -> Finished:
        """Take what an object that still runs has found so far, or stop it and say why."""
        result = await self.rescue(client, obj, outcome)
        if result is not None:
            return Finished(result, obj, running=True)
        reasons = await self.read_reasons(client, obj)
        if self.on_kill_action == "delete":
            await self._remove(client, obj, "the task gives up")
        raise self._given_up(outcome, "\n  ".join([outcome.message, *reasons]))

    def _given_up(self, outcome: Outcome, message: str) -> LLMTuneError:
        from airflow_llmtune.triggers.base import CANNOT_START, STALLED, WAIT_TIMEOUT

        errors = {WAIT_TIMEOUT: WaitTimeoutError, STALLED: StalledError, CANNOT_START: CannotStartError}
        return errors.get(outcome.reason, OutcomeError)(message)

    def _goes(self, finished: Finished) -> bool:
        """Tell whether the author wants the object deleted now that there is a result."""
        if finished.running:
            return self.on_kill_action == "delete"
        succeeded = self.read_outcome(finished.obj).phase == "Succeeded"
        return self.on_finish_action == "delete" or (self.on_finish_action == "delete_succeeded" and succeeded)

    async def _clear_away(self, claim: Claim, result: JSON) -> None:
        """Delete what the result is of; what is left over costs less than a task that fails for it."""
        try:
            async with self.hook.connect() as client:
                for obj in await self._find_made(client, await self._find_namespace(), claim):
                    claim.check_not_superseded(obj)
                    if self._goes(Finished(result, obj, running=not self.read_outcome(obj).finished)):
                        await self._remove(client, obj, "its result is kept by Airflow")
        except LLMTuneError as error:
            self.log.warning("%s of this task could not be deleted: %s", self.kind.kind, error)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
