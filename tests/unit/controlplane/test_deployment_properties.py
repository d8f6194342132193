"""What holds at each step of any rolling update, in whatever order controllers and kubelet get their turns."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import utc_now
from airflow_llmtune.controlplane.controllers.deployment_sizes import max_surge, max_unavailable
from airflow_llmtune.controlplane.pods import is_ready
from airflow_llmtune.controlplane.store import Store
from deployment_world import World

amounts = st.one_of(st.integers(0, 3), st.integers(0, 100).map(lambda share: f"{share}%"))
strategies = st.tuples(amounts, amounts).filter(lambda pair: {str(one).rstrip("%") for one in pair} != {"0"})
moves = st.sampled_from(
    ("reconcile", "reconcile", "reconcile set", "reconcile set", "ready", "ready", "gone", "breaks")
)
templates = st.sampled_from(("v1", "v2", "v3"))
turns = st.lists(st.one_of(moves, moves, moves, moves, moves, templates), max_size=60)


class Rollout:
    """A Deployment whose pods may break at any time, but for the moment between a decision and its execution."""

    def __init__(self, replicas: int, surge: int | str, unavailable: int | str) -> None:
        store = Store()
        registry = Registry(store, KatibAdmission(store), utc_now)
        registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        self.world = World(registry, utc_now)
        update = {"maxSurge": surge, "maxUnavailable": unavailable}
        self.world.create(replicas=replicas, strategy={"rollingUpdate": update})
        spec = self.world.deployment()["spec"]
        self.smallest, self.largest = replicas - max_unavailable(spec), replicas + max_surge(spec)

    def counts(self) -> tuple[int, int]:
        pods = self.world.active()
        return len(pods), sum(map(is_ready, pods))

    async def take(self, turn: str, number: int) -> None:
        world = self.world
        match turn:
            case "reconcile":
                await self.checked(world.reconcile())
            case "reconcile set" if sets := world.sets():
                name = sets[number % len(sets)]["metadata"]["name"]
                await self.checked(world.reconcile_set(name))
            case "ready" if waiting := [pod for pod in world.active() if not is_ready(pod)]:
                world.set_ready(waiting[number % len(waiting)])
            case "breaks" if running := [pod for pod in world.active() if is_ready(pod)]:
                await self.checked(world.settle_sets())
                running = [pod for pod in world.active() if is_ready(pod)] or running
                world.set_ready(running[number % len(running)], ready=False)
                await self.checked(world.settle_sets())
            case "gone":
                world.confirm_deletions()
            case "v1" | "v2" | "v3":
                world.change_template(turn)

    async def finish(self) -> None:
        """All get their turns, and no pod breaks any more."""
        for _ in range(60):
            for turn in ("reconcile", "ready", "gone"):
                await self.take(turn, 0)
                for other in range(len(self.world.sets())):
                    await self.take("reconcile set", other)
            if self.world.condition("Progressing")[1] == "NewReplicaSetAvailable" and not self.unsettled():
                return
        raise AssertionError("it does not come to its end")

    def unsettled(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.world.active() if not is_ready(pod)]

    async def checked(self, step: Any) -> None:
        total, ready = self.counts()
        await step
        total_after, ready_after = self.counts()
        assert total_after <= max(total, self.largest)
        assert ready_after >= min(ready, self.smallest)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(replicas=st.integers(1, 5), strategy=strategies, taken=turns, number=st.integers(0, 10_000))
def test_a_rollout_never_has_too_few_or_too_many_pods_and_comes_to_its_end(
    replicas: int, strategy: tuple[int | str, int | str], taken: list[str], number: int
) -> None:
    rollout = Rollout(replicas, *strategy)

    async def run() -> None:
        for place, turn in enumerate(taken):
            await rollout.take(turn, number + 7 * place)
        await rollout.finish()

    asyncio.run(run())
    done = rollout.world.deployment()["status"]
    assert (done["updatedReplicas"], done["replicas"], done["availableReplicas"]) == (replicas,) * 3
    assert sum(rollout.world.sizes().values()) == replicas
