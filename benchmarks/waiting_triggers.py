"""Triggers that ours is measured beside: one that only sleeps, and one that has a client and a watch of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import load_kube_config

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.client import KubeflowClient
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import Outcome

_WATCH_SECONDS = (240, 300)
_RETRY_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE, _SHORT_WATCH = 0.1, 30.0, 5.0


class SleepTrigger(BaseTrigger):
    """What Airflow itself costs."""

    def __init__(self, *, name: str, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.SleepTrigger", {"name": self.name, "seconds": self.seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(self.seconds)
        yield TriggerEvent({"phase": "Succeeded", "name": self.name})  # type: ignore[no-untyped-call]


class OwnWatchTrigger(BaseTrigger):
    """Good practice without sharing: list, then watch this one object, again and again, with a client of its own."""

    def __init__(self, *, name: str, namespace: str, config_file: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.namespace = namespace
        self.config_file = config_file

    def serialize(self) -> tuple[str, dict[str, Any]]:
        keys = ("name", "namespace", "config_file")
        return f"{__name__}.OwnWatchTrigger", {key: getattr(self, key) for key in keys}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        configuration = Configuration()

        async def load() -> None:
            await load_kube_config(config_file=self.config_file, client_configuration=configuration)

        await load()
        async with ApiClient(configuration) as api:
            outcome = await self._outcome(KubeflowClient(api, _RETRY_SECONDS, load))
        yield TriggerEvent({"phase": outcome.phase, "name": self.name})  # type: ignore[no-untyped-call]

    async def _outcome(self, client: KubeflowClient) -> Outcome:
        pause = _FIRST_PAUSE
        while True:
            begin = time.monotonic()
            try:
                async with aclosing(self._states(client)) as states:
                    async for obj in states:
                        outcome = experiment.read_outcome(obj)
                        if outcome.finished:
                            return outcome
            except KubernetesApiError as error:
                if error.code != 410 and not error.transient:
                    raise
            pause = _FIRST_PAUSE if time.monotonic() - begin > _SHORT_WATCH else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads load, guards nothing

    async def _states(self, client: KubeflowClient) -> AsyncGenerator[dict[str, Any], None]:
        selector = f"metadata.name={self.name}"
        listed, version = await client.list_all(experiment.KIND, self.namespace, field_selector=selector)
        for obj in listed:
            yield obj
        watch = client.watch(
            experiment.KIND,
            self.namespace,
            resource_version=version,
            field_selector=selector,
            timeout_seconds=random.randint(*_WATCH_SECONDS),  # noqa: S311  as above
        )
        async with aclosing(watch) as events:
            async for type_, obj in events:
                if type_ in {"ADDED", "MODIFIED"}:
                    yield obj
