"""A node with a running kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.registry import Registry
from nodes import Node, node_kubelet, running


@pytest.fixture
async def node(registry: Registry, tmp_path: Path) -> AsyncIterator[Node]:
    async with running(registry, node_kubelet(registry, tmp_path)) as node:
        yield node
