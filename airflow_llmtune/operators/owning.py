"""An object that a task calls its own: found again or made, taken over, and deleted only while it is the task's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import ForeignObjectError, KubernetesApiError, WaitTimeoutError
from airflow_llmtune.operators.claim import ON_CLEAR, ON_STALE, Claim, Policy, attempt_of, decide
from airflow_llmtune.operators.manifest import with_metadata
from airflow_llmtune.operators.refusal import fail_on_bad_input
from airflow_llmtune.operators.site import site_annotations, site_name
from airflow_llmtune.operators.waiting import WaitingOperator
from airflow_llmtune.resources.meta import (
    IDENTITY_LABEL,
    ON_KILL_ANNOTATION,
    SITE_ANNOTATION,
    Outcome,
    ResourceKind,
    path,
)
from airflow_llmtune.resources.own_name import fill_in
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import OnKillAction, WaitTrigger

__all__ = ["OwningOperator", "Wanted"]

JSON = dict[str, Any]
# Between its list and its create another try may have done the same.
ROUNDS = 10
# Airflow kills a task five seconds after it was told to stop.
TELL_SECONDS = 1.0


class Wanted(NamedTuple):
    """
    What a try asks for.

    :param manifest: the object, without its name.
    :param fingerprint: of what was asked for; of another one, an object of an earlier try is stale.
    :param deadline: in seconds since the epoch; None: there is none.
    """

    manifest: JSON
    fingerprint: str
    deadline: float | None


class OwningOperator(WaitingOperator):
    """
    Creates one Kubernetes object per attempt, or adopts that of an earlier try.

    The object's name follows from dag, task, run, map index and attempt, and its labels and annotations say whose it
    is. So a retry, or a worker lost between create and defer, adopts what runs; a finished object whose result Airflow
    has not stored is used; after a failed one the next attempt starts.

    :param on_stale: an earlier try's object was made with other arguments: ``restart`` ends it and starts the next
        attempt, ``adopt`` takes it as it is, ``fail`` raises a StaleObjectError.
    :param on_clear: a human cleared the task: ``restart`` ends what runs and starts afresh, ``adopt`` goes on with what
        there is, as a retry does.
    :param on_kill_action: ``delete`` or ``keep`` the object when a user ends the task, or the task gives up on it.
        Katib has no way to pause an Experiment.

    The other arguments are those of :class:`~airflow_llmtune.operators.waiting.WaitingOperator`.
    """

    on_kill_actions = ("delete", "keep")
    # The object is its author's own, and may name a namespace.
    takes_manifest: ClassVar[bool] = False

    def __init__(
        self,
        *,
        on_stale: str = "restart",
        on_clear: str = "restart",
        on_kill_action: OnKillAction = "delete",
        **kwargs: Any,
    ) -> None:
        super().__init__(on_kill_action=on_kill_action, **kwargs)
        self.on_stale = on_stale
        self.on_clear = on_clear

    # What a kind adds.

    def asked_for(self, manifest: JSON) -> Any:
        """Return what a change of makes the object of an earlier try stale."""
        return manifest["spec"]

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        """The trigger that waits for this kind of object; known after rendering."""
        raise NotImplementedError

    def build_manifest(self, problems: Problems) -> JSON:
        """
        Turn the rendered arguments into the object to create; it gets its name, for which ``OWN_NAME`` stands, later.

        :param problems: takes every mistake; with any, the manifest is not used.
        """
        raise NotImplementedError

    def companions(self, obj: JSON) -> list[JSON]:  # noqa: ARG002
        """Return what belongs to the object and goes with it: Secrets, volume claims. Names begin with its own."""
        return []

    async def rehearse(self, client: KubeflowClient, namespace: str, manifest: JSON) -> None:
        """Find out what only the API server can tell of an object that is about to be created; nothing, for most."""

    async def wrap_up(self, client: KubeflowClient, obj: JSON) -> None:
        """Log how far an object got that has ended or will be deleted; stop what a finished one has left running."""

    def tell_progress(self) -> None:
        """Push as XCom how far it got; nothing, for most kinds."""

    @property
    def uses_failed(self) -> bool:
        """Tell whether an object that failed may hold a result all the same."""
        return False

    @property
    def adopts_cleared(self) -> bool:
        return self.on_clear == "adopt"

    # Found or made.

    @property
    def kind(self) -> ResourceKind:
        return self.trigger_class.kind

    def read_outcome(self, obj: JSON) -> Outcome:
        return self.trigger_class.read_outcome(obj)

    def _check_waiting(self, problems: Problems) -> None:
        super()._check_waiting(problems)
        problems.choice("on_stale", self.on_stale, ON_STALE)
        problems.choice("on_clear", self.on_clear, ON_CLEAR)

    async def _create_or_adopt(self, claim: Claim, wanted: Wanted) -> JSON:
        namespace = await self._find_namespace()
        async with self.hook.connect() as client:
            for _ in range(ROUNDS):
                obj = await self._try_to_adopt(client, namespace, claim, wanted)
                if obj is not None:
                    if not self.read_outcome(obj).finished:
                        await self._accompany(client, obj)
                    return obj
        raise KubernetesApiError(
            f"The {self.kind.kind} of this task in namespace {namespace} changed each time it was looked at",
            code=409,
            reason="Conflict",
        )

    async def _find_namespace(self) -> str:
        theirs = self.build_manifest(Problems()) if self.takes_manifest else None
        return self.namespace or path(theirs, "metadata", "namespace") or await self.hook.default_namespace()

    async def _try_to_adopt(self, client: KubeflowClient, namespace: str, claim: Claim, wanted: Wanted) -> JSON | None:
        """Return the object that the task waits for; None when somebody else was there meanwhile: look again."""
        latest = next(reversed(await self._find_made(client, namespace, claim)), None)
        attempt = 1
        if latest is not None:
            self._check_site(latest)
            policy = Policy(self.on_stale, self.on_clear, self.uses_failed)
            adoption = decide(claim, latest, self.read_outcome(latest), wanted.fingerprint, policy)
            if adoption.action == "adopt":
                return await self._take_over(client, latest, claim)
            if adoption.action == "replace" and not await self._stop(client, latest, adoption.why):
                return None
            attempt = attempt_of(latest) + 1
        self._check_time_left(wanted.deadline)
        return await self._create(client, namespace, claim, attempt, wanted)

    async def _take_over(self, client: KubeflowClient, obj: JSON, claim: Claim) -> JSON | None:
        """Write the new owner on an adopted object, so that the earlier try's trigger leaves it alone."""
        metadata = obj["metadata"]
        annotations = {**claim.ownership, ON_KILL_ANNOTATION: self.on_kill_action}
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": annotations}}
        try:
            adopted = await client.patch(self.kind, metadata["namespace"], metadata["name"], patch)
        except KubernetesApiError as error:
            if error.code in {404, 409}:
                return None
            raise
        self.log.info("Adopted %s %s in namespace %s", self.kind.kind, metadata["name"], metadata["namespace"])
        return adopted

    async def _create(
        self, client: KubeflowClient, namespace: str, claim: Claim, attempt: int, wanted: Wanted
    ) -> JSON | None:
        ours = claim.annotations(wanted.fingerprint)
        annotations = {**ours, **site_annotations(), ON_KILL_ANNOTATION: self.on_kill_action}
        named = with_metadata(wanted.manifest, claim.name(attempt), namespace, claim.labels(attempt), annotations)
        named = fill_in(named, claim.name(attempt))
        try:
            await self.rehearse(client, namespace, named)
            await self._accompany(client, named, dry_run=True)
            obj = await client.create(self.kind, namespace, named)
        except KubernetesApiError as error:
            fail_on_bad_input(self.kind, claim.name(attempt), error)
            if error.reason != "AlreadyExists":
                raise
            await self._check_not_foreign(client, named)
            return None
        self.log.info("Created %s %s in namespace %s", self.kind.kind, obj["metadata"]["name"], namespace)
        return obj

    async def _check_not_foreign(self, client: KubeflowClient, manifest: JSON) -> None:
        metadata = manifest["metadata"]
        existing = await client.find(self.kind, metadata["namespace"], metadata["name"])
        labels: Mapping[str, str] = path(existing, "metadata", "labels") or {}
        if existing is not None and labels.get(IDENTITY_LABEL) != metadata["labels"][IDENTITY_LABEL]:
            owner = ", ".join(f"{key}={labels[key]}" for key in ("dag_id", "task_id", "run_id") if key in labels)
            raise ForeignObjectError(
                f"{self.kind.kind} {metadata['name']!r} exists in namespace {metadata['namespace']!r} and was not "
                f"created by this task; it belongs to {owner or 'somebody outside Airflow'}. "
                f"Fix: delete or rename it, or give this task another namespace"
            )

    def _check_site(self, obj: JSON) -> None:
        """Make sure that it is of this Airflow: another one with the same DAG has the same run ids."""
        there, here = path(obj, "metadata", "annotations", SITE_ANNOTATION), site_name()
        if None not in (there, here) and there != here:
            metadata = obj["metadata"]
            raise ForeignObjectError(
                f"{self.kind.kind} {metadata['name']!r} in namespace {metadata['namespace']!r} belongs to this task of "
                f"the Airflow {there!r}, and this one is {here!r}. Fix: give each Airflow a namespace of "
                f"its own; if this one was renamed, set AIRFLOW__LLMTUNE__SITE to {there!r}"
            )

    async def _accompany(self, client: KubeflowClient, obj: JSON, *, dry_run: bool = False) -> None:
        from airflow_llmtune.operators.companions import bring

        for manifest in self.companions(obj):
            await bring(client, obj, manifest, dry_run=dry_run)

    def _check_time_left(self, deadline: float | None) -> None:
        if deadline is not None and deadline <= time.time():
            text = f"The task's `timeout` of {self.timeout} has passed since it first started; nothing was created"
            fix = "raise it, or clear the task to start anew"
            raise AirflowFailException(f"{text}. Fix: {fix}") from WaitTimeoutError(text)

    # Deleted.

    async def abandon(self, claim: Claim) -> None:
        await self._abandon(claim, claim.owns)

    async def _abandon(self, claim: Claim, is_ours: Callable[[JSON], bool]) -> None:
        async with self.hook.connect() as client:
            found = await self._find_made(client, await self._find_namespace(), claim)
            for obj in filter(is_ours, found):
                if self.read_outcome(obj).finished:
                    await self.wrap_up(client, obj)
                else:
                    await self._stop(client, obj, "the task was ended")

    async def _find_made(self, client: KubeflowClient, namespace: str, claim: Claim) -> list[JSON]:
        """Return the objects of all tries of this task instance, oldest attempt first."""
        found, _ = await client.list_all(self.kind, namespace, label_selector=claim.selector)
        return sorted(filter(claim.made, found), key=attempt_of)

    async def _stop(self, client: KubeflowClient, obj: JSON, why: str) -> bool:
        """Delete an object that still runs, unless somebody else has come to own it since it was read."""
        await self.wrap_up(client, obj)
        # While a task is killed, its supervisor may not answer; the deletion is not to wait for that.
        telling = threading.Thread(target=self._try_to_tell_progress, daemon=True)
        telling.start()
        telling.join(TELL_SECONDS)
        return await self._remove(client, obj, why)

    def _try_to_tell_progress(self) -> None:
        try:
            self.tell_progress()
        except Exception as error:  # noqa: BLE001 (whatever Airflow's API raises; the log has it as well)
            self.log.warning("What was found so far could not be pushed as XCom: %s", error)

    async def _remove(self, client: KubeflowClient, obj: JSON, why: str) -> bool:
        from airflow_llmtune.hooks.ownership import delete_owned, owner_of

        is_gone = await delete_owned(client, self.kind, obj, owner_of(obj))
        if is_gone:
            self.log.info("%s %s deleted: %s", self.kind.kind, obj["metadata"]["name"], why)
        else:
            self.log.info("%s %s is left alone: it is gone, or another's", self.kind.kind, obj["metadata"]["name"])
        return is_gone
