"""The controllers of Deployments and ReplicaSets on a real registry; the test plays the kubelet."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, EVENT, POD, REPLICA_SET
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import timestamp
from airflow_llmtune.controlplane.controllers.deployment import DeploymentController
from airflow_llmtune.controlplane.controllers.deployment_revisions import HASH_LABEL
from airflow_llmtune.controlplane.controllers.replica_set import ReplicaSetController
from airflow_llmtune.controlplane.pods import is_active, is_ready
from objects import Object, deployment
from registries import bind, settle

NAME = "web"


class World:
    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.deployments = DeploymentController(registry, clock)
        self.replica_sets = ReplicaSetController(registry, clock)
        self.delay: float | None = None
        """When the Deployment wants to be looked at again."""

    # What a user does

    def create(self, **spec: Any) -> None:
        self.registry.create(DEPLOYMENT, deployment(NAME, "serve", "v1", **spec), "default")

    def patch(self, **spec: Any) -> None:
        self.registry.patch(DEPLOYMENT, "default", NAME, MERGE, {"spec": spec})

    def change_template(self, version: str) -> None:
        template = deployment(NAME, "serve", version)["spec"]["template"]
        self.patch(template={"spec": template["spec"]})

    # What the control plane does

    async def reconcile(self) -> None:
        self.delay = await self.deployments.reconcile("default", NAME)

    async def reconcile_set(self, name: str) -> None:
        await self.replica_sets.reconcile("default", name)
        bind(self.registry)

    async def settle_sets(self) -> None:
        async def each() -> None:
            for one in self.sets():
                await self.reconcile_set(one["metadata"]["name"])

        await settle(self.registry, each)

    async def settle(self) -> Object:
        """Until only the kubelet could bring it further."""

        async def all_of_them() -> None:
            await self.reconcile()
            await self.settle_sets()

        await settle(self.registry, all_of_them)
        return self.deployment()

    async def roll_out(self) -> Object:
        """Until all is done, with a kubelet whose pods become ready at once."""

        async def all_of_them() -> None:
            await self.settle()
            self.run_all()
            self.confirm_deletions()

        await settle(self.registry, all_of_them)
        return self.deployment()

    # What the kubelet does

    def set_ready(self, pod: Object, *, ready: bool = True) -> None:
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": timestamp(self.clock()),
        }
        self.registry.update_status(POD, {**pod, "status": {"phase": "Running", "conditions": [condition]}})

    def run_all(self) -> None:
        for pod in self.active():
            if not is_ready(pod):
                self.set_ready(pod)

    def confirm_deletions(self) -> None:
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"]:
                self.registry.delete(POD, "default", pod["metadata"]["name"], grace_period_seconds=0)

    # What there is

    def deployment(self) -> Object:
        return self.registry.find(DEPLOYMENT, "default", NAME) or {}

    def sets(self) -> list[Object]:
        return self.registry.list(REPLICA_SET, "default")[0]

    def set_of(self, version: str) -> Object:
        (found,) = [one for one in self.sets() if _version(one["spec"]["template"]["spec"]) == version]
        return found

    def pods(self) -> list[Object]:
        return self.registry.list(POD, "default")[0]

    def active(self, version: str = "") -> list[Object]:
        return [pod for pod in self.pods() if is_active(pod) and version in {"", _version(pod["spec"])}]

    def sizes(self) -> dict[str, int]:
        """The wanted pods by version."""
        return {_version(one["spec"]["template"]["spec"]): one["spec"]["replicas"] for one in self.sets()}

    def condition(self, type_: str) -> tuple[str, str, str]:
        found = [one for one in self.deployment()["status"]["conditions"] if one["type"] == type_]
        return next(((one["status"], one["reason"], one["message"]) for one in found), ("", "", ""))

    def events(self, reason: str) -> list[str]:
        """Their messages without the hashes."""
        found = [one for one in self.registry.list(EVENT, "default")[0] if one["reason"] == reason]
        hashes = {
            one["metadata"]["labels"][HASH_LABEL]: _version(one["spec"]["template"]["spec"]) for one in self.sets()
        }
        texts = []
        for one in sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"])):
            text = one["message"]
            for letters, version in hashes.items():
                text = text.replace(letters, version)
            texts.append(text)
        return texts


def _version(pod_spec: Object) -> str:
    return str(pod_spec["containers"][0]["command"][1])
