"""What was written to a claim is there as long as the claim is, and a pod that still uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import PERSISTENT_VOLUME_CLAIM
from airflow_llmtune.controlplane.apiserver.registry import Registry
from nodes import Node, node_kubelet, running
from waiting import eventually


@pytest.fixture
def folder(node: Node, tmp_path: Path) -> Path:
    make_claim(node.registry)
    return tmp_path / "volumes" / "default" / "claim"


def make_claim(registry: Registry, name: str = "claim") -> None:
    registry.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": name}, "spec": {}}, "default")


def delete_claim(registry: Registry) -> None:
    registry.delete(PERSISTENT_VOLUME_CLAIM, "default", "claim")


def writing(script: str) -> dict[str, Any]:
    return {
        "script": script,
        "container": {"volumeMounts": [{"name": "v", "mountPath": "/claim"}]},
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}],
    }


async def test_a_folder_goes_with_its_claim_and_no_other(node: Node, folder: Path) -> None:
    other = folder.with_name("other")
    make_claim(node.registry, "other")
    other.mkdir(parents=True)
    node.create(**writing("echo 1 > /claim/file"))
    await node.end()
    assert (folder / "file").read_text() == "1\n"
    delete_claim(node.registry)
    await eventually(lambda: not folder.exists())
    await eventually(lambda: list(folder.parents[1].glob(".gone/*")) == [])
    assert other.is_dir()


async def test_a_pod_that_runs_keeps_what_it_writes_to(node: Node, folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo 1 > /claim/file; while ! [ -e {go} ]; do sleep 0.05; done; cat /claim/file"
    node.create(**writing(script))
    await eventually(lambda: (folder / "file").exists())
    delete_claim(node.registry)
    go.touch()
    await node.end()
    assert await node.log() == "1\n"
    await eventually(lambda: not folder.exists())


async def test_what_was_deleted_while_no_kubelet_ran_goes_at_its_start(registry: Registry, tmp_path: Path) -> None:
    make_claim(registry, "kept")
    for name in ("gone", "kept"):
        (tmp_path / "volumes" / "default" / name).mkdir(parents=True)
    async with running(registry, node_kubelet(registry, tmp_path)):
        await eventually(lambda: not (tmp_path / "volumes" / "default" / "gone").exists())
        assert (tmp_path / "volumes" / "default" / "kept").is_dir()
