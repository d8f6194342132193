"""What an apps/v1 Deployment does next: changes of its ReplicaSets, its status. Pure.

As in Kubernetes it goes step by step: each plan is made anew from what the ReplicaSets have reached by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.controllers import deployment_status as states
from airflow_llmtune.controlplane.controllers.deployment_revisions import REVISION, annotations_of
from airflow_llmtune.controlplane.controllers.deployment_rollout import Rollout
from airflow_llmtune.controlplane.controllers.deployment_sizes import is_rolling

Object = dict[str, Any]


@dataclass(frozen=True)
class DeploymentPlan:
    status: Object
    revision: str | None
    """For the Deployment's annotation; None while it has no ReplicaSet of its template."""
    create: Object | None
    update: list[Object]
    delete: list[str]
    events: list[tuple[str, str, str]]
    """Type, reason and message."""
    look_again_seconds: float | None


def plan(
    deployment: Object, replica_sets: Sequence[Object], running: Mapping[str, int], now: datetime
) -> DeploymentPlan:
    """``running`` has the processes' side: the pods of each ReplicaSet that have not ended, also the deleted ones."""
    rollout = Rollout.of(deployment, replica_sets, now)
    status = _step(rollout, running)
    new = rollout.new
    gone = set(rollout.deleted)
    changed = [one for one in rollout.changed(replica_sets) if one["metadata"]["name"] not in gone]
    return DeploymentPlan(
        status,
        None if new is None else annotations_of(new).get(REVISION),
        rollout.created,
        changed,
        rollout.deleted,
        rollout.events,
        states.seconds_to_look_again(deployment, status, now),
    )


def _step(rollout: Rollout, running: Mapping[str, int]) -> Object:
    deployment = rollout.deployment
    if "deletionTimestamp" in deployment["metadata"]:
        return _counted(rollout)
    states.note_pause(deployment, rollout.status, rollout.now)
    if rollout.spec.get("paused") or rollout.is_rescaled():
        rollout.rescale(rollout.recognise_new())
        if rollout.spec.get("paused"):
            rollout.clean_up()
        return _counted(rollout)
    if is_rolling(rollout.spec):
        _roll(rollout)
    else:
        _recreate(rollout, running)
    status = _counted(rollout)
    states.note_progress(deployment, rollout.status, status, rollout.new, rollout.now)
    states.note_failures(status, rollout.sets, rollout.new)
    return status


def _counted(rollout: Rollout) -> Object:
    return states.counted(rollout.deployment, rollout.status, rollout.sets, rollout.new, rollout.now)


def _roll(rollout: Rollout) -> None:
    new = rollout.ensure_new()
    if rollout.grow_new(new) or rollout.shrink_old(new):
        return
    if states.is_complete(rollout.deployment, rollout.status):
        rollout.clean_up()


def _recreate(rollout: Rollout, running: Mapping[str, int]) -> None:
    """The new pods come only when the processes of the old ones are gone."""
    new = rollout.recognise_new()
    if rollout.stop_old():
        return
    if any(running.get(one["metadata"]["name"], 0) or one.get("status", {}).get("replicas", 0) for one in rollout.old):
        return
    new = rollout.ensure_new() if new is None else new
    rollout.grow_new(new)
    if states.is_complete(rollout.deployment, rollout.status):
        rollout.clean_up()
