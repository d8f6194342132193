from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.algorithms.population_labels import PARENT_LABEL
from airflow_llmtune.controlplane.algorithms.request import Suggested
from airflow_llmtune.controlplane.apiserver.kinds import PERSISTENT_VOLUME_CLAIM
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import population_volume
from objects import Object
from suggestion_world import World, algorithm, stepped


@pytest.fixture
def world(registry: Registry, clock: Clock, tmp_path: Path) -> World:
    return World(registry, clock, tmp_path)


PBT = algorithm("pbt", suggestion_trial_dir="/opt/ckpt", n_population="5", truncation_threshold="0.2")


async def test_a_child_begins_with_a_copy_of_its_parents_checkpoint(world: World, experiment: Object) -> None:
    spec = {"parameters": [stepped()], "algorithm": PBT, "resumePolicy": "FromVolume", "maxTrialCount": 20}
    world.ask(experiment, 5, **spec)
    await world.settle()
    folder = world.volumes / "default" / "exp-pbt" / "exp"
    first = world.suggestions()
    assert sorted(path.name for path in folder.iterdir()) == sorted(one["name"] for one in first)
    for index, assignment in enumerate(first):
        (folder / assignment["name"] / "weights").write_text(assignment["name"])
        world.end_trial(assignment, f"0.{index + 1}")
    world.request(10)
    await world.settle()
    children = world.suggestions()[5:]
    assert len(children) == 5
    for child in children:
        parent = child["labels"][PARENT_LABEL]
        assert (folder / child["name"] / "weights").read_text() == parent
    (folder / children[0]["name"] / "weights").write_text("trained on")
    assert (folder / children[0]["labels"][PARENT_LABEL] / "weights").read_text() != "trained on"
    claim = world.find(PERSISTENT_VOLUME_CLAIM, "exp-pbt")
    assert claim is not None
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


async def test_the_child_of_a_parent_that_left_nothing_begins_with_nothing(world: World, experiment: Object) -> None:
    spec = {"parameters": [stepped()], "algorithm": PBT, "resumePolicy": "FromVolume", "maxTrialCount": 20}
    world.ask(experiment, 5, **spec)
    await world.settle()
    folder = world.volumes / "default" / "exp-pbt" / "exp"
    for index, assignment in enumerate(world.suggestions()):
        (folder / assignment["name"]).rmdir()
        world.end_trial(assignment, f"0.{index + 1}")
    world.request(6)
    await world.settle()
    assert list((folder / world.suggestions()[5]["name"]).iterdir()) == []


CHILD = [Suggested({}, "child", {PARENT_LABEL: "parent"})]


def test_what_cannot_be_copied_does_not_keep_a_checkpoint_from_its_child(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "weights").write_text("trained")
    (parent / "latest").symlink_to("weights")
    os.mkfifo(parent / "pipe")
    population_volume.prepare(tmp_path, CHILD)
    assert sorted(path.name for path in (tmp_path / "child").iterdir()) == ["latest", "weights"]


@contextmanager
def small_files_only() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "weights").write_bytes(bytes(2 << 20))
    with small_files_only(), pytest.raises(OSError, match="File too large"):
        population_volume.prepare(tmp_path, CHILD)
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]
