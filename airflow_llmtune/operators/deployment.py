"""The lifecycle of what is deployed and stays: apply, wait until it serves, ask it; or bring back what served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.exceptions import (
    DeploymentFailedError,
    KubernetesApiError,
    OutcomeError,
    WaitTimeoutError,
)
from airflow_llmtune.links.kserve import EndpointLink
from airflow_llmtune.operators.applying import apply, differs
from airflow_llmtune.operators.claim import Claim
from airflow_llmtune.operators.model_asset import tell_outlets
from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.operators.waiting import WaitingOperator
from airflow_llmtune.resources import credentials, inference_service, rollback_record, rollout
from airflow_llmtune.resources.meta import Outcome, ResourceKind, path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import REVISION_LABEL, read_revisions, stamped
from airflow_llmtune.triggers.rollback import ATTEMPTS, await_end, find_record, forget, keep_previous, roll_back

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.resources.smoke_test import SmokeTest
    from airflow_llmtune.triggers.kserve import InferenceServiceTrigger

__all__ = ["DeploymentOperator"]

JSON = dict[str, Any]
ON_FAILURE = ("rollback", "keep")


class Applied(NamedTuple):
    """What was applied, and since when it is waited for."""

    obj: JSON
    since: datetime


class DeploymentOperator(WaitingOperator):
    """
    Applies one object that serves a model, waits until it does, and returns where.

    The object keeps its author's name: many runs deploy to it, one after the other. A deployment that changes nothing
    ends at once. What served before is kept in a ControllerRevision until the deployment has ended, so that a retry,
    also after a lost worker, goes back to that and not to what it left half done. When the API server cannot be asked,
    the deployment is left as it is for a retry to go on with; the last try goes back, if the server answers by then.

    :param smoke_test: ask the model once it serves: True, False, or ``{"prompt", "max_tokens", "expect"}``, where the
        answer has to match the regular expression ``expect``. A deployment whose model does not answer has failed.
    :param endpoint_conn_id: Airflow connection whose password goes with the smoke test as bearer token.
    :param on_failure: ``rollback``: what served before is applied again, or the object deleted when there was none;
        ``keep`` leaves it.
    :param on_kill_action: the same, when a user ends the task, other than by marking it as a success.
    :param force_conflicts: take fields that somebody else has set otherwise, such as with ``kubectl``.
    :param start_timeout: how long a new pod may wait for a node, or a Deployment get no further.
    :param timeout: give up this long after the object was applied; one hour.

    The other arguments are those of :class:`~airflow_llmtune.operators.waiting.WaitingOperator`.
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "smoke_test", "endpoint_conn_id")
    operator_extra_links = (EndpointLink(),)
    on_kill_actions = ON_FAILURE

    def __init__(
        self,
        *,
        smoke_test: bool | Mapping[str, Any] = False,
        endpoint_conn_id: str | None = None,
        on_failure: str = "rollback",
        on_kill_action: str = "rollback",
        force_conflicts: bool = False,
        start_timeout: timedelta = timedelta(minutes=10),
        timeout: timedelta | None = timedelta(hours=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(on_kill_action=on_kill_action, timeout=timeout, **kwargs)
        self.smoke_test = smoke_test
        self.endpoint_conn_id = endpoint_conn_id
        self.on_failure = on_failure
        self.force_conflicts = force_conflicts
        self.start_timeout = start_timeout
        self.endpoint_url: str | None = None

    # What an operator adds.

    @property
    def trigger_class(self) -> type[InferenceServiceTrigger]:
        """The trigger that waits for this kind of object; known after rendering."""
        from airflow_llmtune.triggers.kserve import InferenceServiceTrigger

        return InferenceServiceTrigger

    def build_manifest(self, problems: Problems) -> JSON:
        """
        Turn the rendered arguments into the object; all of it that does not depend on what serves now.

        :param problems: takes every mistake; with any, the manifest is not used.
        """
        raise NotImplementedError

    def adapt(self, manifest: JSON, current: JSON | None, problems: Problems, *, goes_on: bool) -> JSON:  # noqa: ARG002
        """Fit the manifest to what serves now (``current``), as an earlier try may have left it (``goes_on``)."""
        return manifest

    def read_smoke_test(self, manifest: JSON, problems: Problems) -> SmokeTest | None:
        """Return what to ask the model that this manifest, or object, describes."""
        raise NotImplementedError

    def read_url(self, obj: JSON) -> tuple[str | None, str | None]:
        """Return the URL from outside of the cluster, and the one from inside."""
        return inference_service.read_url(obj)

    @property
    def served_name(self) -> str | None:
        """The name by which clients ask for the model, where the operator has chosen it."""
        return None

    @property
    def wanted_traffic(self) -> int | None:
        """Percent of the requests to wait for."""
        return None

    # The lifecycle.

    @property
    def resource_kind(self) -> ResourceKind:
        return self.trigger_class.kind

    def execute(self, context: Context) -> JSON:
        claim, manifest = self._begin(context), self._checked_manifest()
        self._read_token()  # A connection that is missing, or spoilt, is told before anything was changed.
        applied = asyncio.run(self._apply(claim, manifest))
        trigger = self._trigger(applied, context)
        outcome = asyncio.run(self._look(trigger))
        if not outcome.finished:
            outcome = self.wait(trigger)
        return self.execute_complete(context, outcome.to_event(trigger.name, trigger.namespace, trigger.uid))

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        """Ask the model, and return where it is served; runs in a worker again after the trigger has fired."""
        claim = self._begin(context)
        obj = asyncio.run(self._finish(event, claim))
        url, address_url = self.read_url(obj)
        self.endpoint_url = url or address_url
        try:
            asked = self._ask(obj, url, address_url)
        except DeploymentFailedError as error:
            outcome = Outcome("Failed", "SmokeTestFailed", str(error))
            raise asyncio.run(self._fail(outcome, event["namespace"], event["name"], claim)) from error
        asyncio.run(self._forget(obj, claim))
        result = self._result(obj, url, address_url, asked)
        tell_outlets(context, self, result)
        return result

    async def abandon(self, claim: Claim) -> None:
        manifest = self.build_manifest(Problems())
        namespace, name = await self._namespace(manifest), manifest["metadata"]["name"]
        async with self.hook.connect() as client:
            told = await roll_back(client, self.resource_kind, namespace, name, claim.owner)
        self.log.info("The deployment of %s %s was ended. %s", self.resource_kind.kind, name, told)

    def _checked_manifest(self) -> JSON:
        problems = Problems()
        self._check_waiting(problems)
        problems.choice("on_failure", self.on_failure, ON_FAILURE)
        problems.duration("start_timeout", self.start_timeout, "timedelta(minutes=20)")
        manifest = self.build_manifest(problems)
        given = path(manifest, "metadata", "namespace")
        if self.namespace and given and given != self.namespace:
            rule = f"is not the manifest's own, {given!r}"
            problems.add("namespace", self.namespace, rule, "leave one of the two out")
        if not problems.errors:
            self.read_smoke_test(manifest, problems)
        fail_on(self, problems)
        return manifest

    async def _namespace(self, manifest: JSON) -> str:
        return self.namespace or path(manifest, "metadata", "namespace") or await self.hook.default_namespace()

    async def _apply(self, claim: Claim, manifest: JSON) -> Applied:
        namespace, name = await self._namespace(manifest), manifest["metadata"]["name"]
        async with self.hook.connect() as client:
            for attempt in range(1, ATTEMPTS + 1):
                current = await client.find(self.resource_kind, namespace, name)
                record = await find_record(client, self.resource_kind, namespace, name)
                goes_on = rollback_record.goes_on(record, current, _epoch(claim))
                desired = self._desired(manifest, current, namespace, goes_on=goes_on)
                try:
                    return await self._apply_once(client, claim, desired, current, record)
                except KubernetesApiError as error:
                    if error.code != 409 or current is None or attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    async def _apply_once(
        self, client: KubeflowClient, claim: Claim, desired: JSON, current: JSON | None, record: JSON | None
    ) -> Applied:
        """Raise a conflict when somebody has changed the object since ``current`` was read: it is what is kept."""
        kind, namespace, name = self.resource_kind, desired["metadata"]["namespace"], desired["metadata"]["name"]
        preview = await self._send(client, desired, dry_run=True)
        since = datetime.now(UTC)
        if current is not None and not differs(preview, current) and not rollback_record.wrote(record, current):
            self.log.info("%s %s is as it should be", kind.kind, name)
            return Applied(current, since)
        if self.on_failure == "rollback" or self.on_kill_action == "rollback":
            kept = await keep_previous(client, kind, preview, current, claim.owner, _epoch(claim))
            since = rollback_record.began(kept)
        if current is not None:
            version = current["metadata"]["resourceVersion"]
            desired = {**desired, "metadata": {**desired["metadata"], "resourceVersion": version}}
        obj = await self._send(client, desired)
        self.log.info("Applied %s %s in namespace %s", kind.kind, name, namespace)
        return Applied(obj, since)

    def _desired(self, manifest: JSON, current: JSON | None, namespace: str, *, goes_on: bool) -> JSON:
        problems = Problems()
        desired = self.adapt({**manifest, "spec": stamped(manifest["spec"])}, current, problems, goes_on=goes_on)
        fail_on(self, problems)
        return {**desired, "metadata": {**desired["metadata"], "namespace": namespace}}

    async def _send(self, client: KubeflowClient, desired: JSON, *, dry_run: bool = False) -> JSON:
        return await apply(client, self.resource_kind, desired, force=self.force_conflicts, dry_run=dry_run)

    def _trigger(self, applied: Applied, context: Context) -> InferenceServiceTrigger:
        metadata = applied.obj["metadata"]
        return self.trigger_class(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            revisions=read_revisions(applied.obj["spec"]),
            started=applied.since.timestamp(),
            start_timeout=self.start_timeout.total_seconds(),
            traffic=self.wanted_traffic,
            had_failed=rollout.has_failed(applied.obj),
            deadline=self._deadline(applied.since, context),
            **self._connection(),
        )

    async def _look(self, trigger: InferenceServiceTrigger) -> Outcome:
        from airflow_llmtune.triggers.base import API_ERROR

        try:
            async with self.hook.connect() as client:
                return await trigger.look(client)
        except KubernetesApiError as error:
            return Outcome("Failed", API_ERROR, str(error))

    async def _finish(self, event: JSON, claim: Claim) -> JSON:
        from airflow_llmtune.triggers.base import API_ERRORS

        outcome, name, namespace = Outcome.from_event(event), event["name"], event["namespace"]
        if outcome.reason in API_ERRORS:
            told = [await self._go_back(namespace, name, claim)] if self._is_last_try else []
            raise API_ERRORS[outcome.reason]("\n  ".join([outcome.message, *told]), reason=outcome.reason)
        if outcome.phase != "Succeeded":
            raise await self._fail(outcome, namespace, name, claim)
        async with self.hook.connect() as client:
            obj = await client.find(self.resource_kind, namespace, name)
        if obj is None or obj["metadata"]["uid"] != event["uid"]:
            raise OutcomeError(f"{self.resource_kind.kind} {name} in namespace {namespace} was deleted once it served")
        return obj

    async def _fail(self, outcome: Outcome, namespace: str, name: str, claim: Claim) -> Exception:
        """Bring back what served before, and return the error that tells all of it."""
        from airflow_llmtune.triggers.base import OBJECT_DELETED, WAIT_TIMEOUT

        where = f"{self.resource_kind.kind} {name} in namespace {namespace}"
        lines = [f"{where} was not deployed: {outcome.reason}: {outcome.message}"]
        async with self.hook.connect() as client:
            # What the object says then is not of this deployment.
            is_other = outcome.reason in {rollout.SUPERSEDED, OBJECT_DELETED}
            obj = None if is_other else await client.find(self.resource_kind, namespace, name)
            revisions = [] if obj is None else read_revisions(obj["spec"])
            if revisions:
                lines += await self._explain(client, namespace, name, revisions)
        lines.append(await self._go_back(namespace, name, claim))
        # In Knative mode the version before has kept its pods.
        if self.on_failure == "rollback" and revisions and inference_service.deployment_mode(obj) != "Knative":
            with suppress(KubernetesApiError):
                async with self.hook.connect() as client:
                    selector = self.trigger_class.pod_selector(name)
                    await await_end(client, self.resource_kind, namespace, name, selector, revisions)
        error = WaitTimeoutError if outcome.reason == WAIT_TIMEOUT else DeploymentFailedError
        return error("\n  ".join(lines))

    async def _go_back(self, namespace: str, name: str, claim: Claim) -> str:
        try:
            async with self.hook.connect() as client:
                if self.on_failure == "rollback":
                    return await roll_back(client, self.resource_kind, namespace, name, claim.owner)
                await forget(client, self.resource_kind, namespace, name, claim.owner)
                return "It was left as it is: on_failure='keep'"
        except KubernetesApiError as error:
            # It must not hide why the deployment failed.
            record = rollback_record.record_name(self.resource_kind, name)
            return f"It could not be rolled back: {error}. What served before is in ControllerRevision {record!r}"

    async def _explain(self, client: KubeflowClient, namespace: str, name: str, revisions: Sequence[str]) -> list[str]:
        from airflow_llmtune.hooks.diagnosis import explain

        selector = f"{self.trigger_class.pod_selector(name)},{REVISION_LABEL} in ({','.join(revisions)})"
        return await explain(client, namespace, name, selector)

    async def _forget(self, obj: JSON, claim: Claim) -> None:
        async with self.hook.connect() as client:
            await forget(client, self.resource_kind, obj["metadata"]["namespace"], obj["metadata"]["name"], claim.owner)

    def _ask(self, obj: JSON, url: str | None, address_url: str | None) -> JSON | None:
        test = self.read_smoke_test(obj, Problems())
        if test is None:
            return None
        inside = self.in_cluster or "KUBERNETES_SERVICE_HOST" in os.environ
        endpoint = (address_url or url) if inside else (url or address_url)
        if endpoint is None:
            raise DeploymentFailedError("The smoke test failed: the status names no URL")
        from airflow_llmtune.operators.endpoint import ask

        return ask(endpoint, test, self._read_token(), self.log.info)

    def _read_token(self) -> str | None:
        from airflow.sdk import Connection

        if self.endpoint_conn_id is None:
            return None
        connection, problems = Connection.get(self.endpoint_conn_id), Problems()
        found = credentials.read_connection(credentials.ENDPOINT, self.endpoint_conn_id, connection, problems)
        fail_on(self, problems)
        return found.values.get(credentials.ENDPOINT_TOKEN)

    def _result(self, obj: JSON, url: str | None, address_url: str | None, asked: JSON | None) -> JSON:
        metadata = obj["metadata"]
        ready = path(obj, "status", "components", "predictor", "latestReadyRevision")
        return {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "url": url,
            "address_url": address_url,
            "revision": ready or next(iter(read_revisions(obj["spec"])), None),
            "served_model_name": self.served_name,
            "deployment_mode": inference_service.deployment_mode(obj),
            "smoke_test": asked,
        }


def _epoch(claim: Claim) -> str:
    return "/".join(map(str, (*claim.who, claim.epoch)))
