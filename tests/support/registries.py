"""Short ways to use a registry without a server in front of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, POD, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object, experiment

T = TypeVar("T")


class AdmitAll:
    def admit(self, operation: str, kind: Kind, obj: Object, old: Object | None, namespace: Object | None) -> Object:
        return obj


def create(registry: Registry, kind: Kind = EXPERIMENT, obj: Object | None = None) -> Object:
    return registry.create(kind, obj or experiment(), "default")


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        call(*args, **kwargs)
    return raised.value


async def settle(registry: Registry, reconcile: Callable[[], Awaitable[T]]) -> T:
    """Reconcile until nothing changes any more; returns what the last call did."""
    while True:
        before = registry.resource_version
        result = await reconcile()
        if registry.resource_version == before:
            return result


def bind(registry: Registry) -> None:
    """Give every pod a node, as the scheduler does: from then on a deleted one waits for its kubelet."""
    for pod in registry.list(POD, "default")[0]:
        if "nodeName" not in pod["spec"]:
            pod["spec"]["nodeName"] = "node"
            registry.update(POD, pod)
