"""One step of a Deployment as it is worked out: its ReplicaSets with the changes made so far. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.controllers import deployment_status as states
from airflow_llmtune.controlplane.controllers.deployment_revisions import (
    DESIRED_REPLICAS,
    annotate,
    annotate_size,
    annotations_of,
    by_age,
    find_new,
    new_replica_set,
    number,
    revision,
    size,
)
from airflow_llmtune.controlplane.controllers.deployment_sizes import (
    Sizes,
    is_rolling,
    proportional,
    size_of_new,
    sizes_of_old,
)
from airflow_llmtune.controlplane.controllers.meta_conditions import find

Object = dict[str, Any]

_NO_LIMIT = 2**31 - 1


@dataclass
class Rollout:
    """``sets`` are its own copies, the oldest first; ``status`` carries the conditions from one step to the next."""

    deployment: Object
    sets: list[Object]
    new: Object | None
    """The one of them that has the Deployment's template."""
    now: datetime
    status: Object
    created: Object | None = None
    deleted: list[str] = field(default_factory=list)
    events: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, deployment: Object, sets: Sequence[Object], now: datetime) -> Rollout:
        own = copy.deepcopy(by_age(sets))
        return cls(deployment, own, find_new(deployment, own), now, copy.deepcopy(deployment.get("status", {})))

    @property
    def spec(self) -> Object:
        spec: Object = self.deployment["spec"]
        return spec

    @property
    def old(self) -> list[Object]:
        return [one for one in self.sets if one is not self.new]

    @property
    def active(self) -> list[Object]:
        return [one for one in self.sets if one["spec"]["replicas"]]

    # The new ReplicaSet

    def recognise_new(self) -> Object | None:
        """The one there is, made the latest revision."""
        new = self.new
        if new is None:
            return None
        annotate(self.deployment, new, self._latest())
        new["spec"].pop("minReadySeconds", None)
        if self.spec.get("minReadySeconds"):
            new["spec"]["minReadySeconds"] = self.spec["minReadySeconds"]
        if find(self.status, states.PROGRESSING) is None:
            self._note("FoundNewReplicaSet", f'Found new replica set "{new["metadata"]["name"]}"')
        return new

    def ensure_new(self) -> Object:
        """The same, or one that is made; with pods as far as there is room for them."""
        new = self.recognise_new()
        if new is not None:
            return new
        made = new_replica_set(self.deployment)
        name = made["metadata"]["name"]
        made["spec"]["replicas"] = size_of_new(self.spec, [size(one) for one in self.sets], size(made))
        annotate(self.deployment, made, self._latest())
        annotate_size(self.deployment, made)
        if made["spec"]["replicas"]:
            self._tell(made, 0)
        self._note("NewReplicaSetCreated", f'Created new replica set "{name}"')
        self.created = self.new = made
        self.sets.append(made)
        return made

    def _latest(self) -> int:
        return max((revision(one) for one in self.old), default=0) + 1

    def _note(self, reason: str, message: str) -> None:
        if states.has_deadline(self.deployment):
            states.put(self.status, states.PROGRESSING, "True", reason, message, self.now)

    # Sizes

    def resize(self, replica_set: Object, wanted: int) -> bool:
        """Whether its number of pods changes."""
        before = replica_set["spec"]["replicas"]
        if wanted == before:
            return False
        replica_set["spec"]["replicas"] = wanted
        annotate_size(self.deployment, replica_set)
        self._tell(replica_set, before)
        return True

    def _tell(self, replica_set: Object, before: int) -> None:
        wanted, name = replica_set["spec"]["replicas"], replica_set["metadata"]["name"]
        word = "up" if wanted > before else "down"
        text = f"Scaled {word} replica set {name} from {before} to {wanted}"
        self.events.append(("Normal", "ScalingReplicaSet", text))

    def _resize_each(self, sets: Sequence[Object], sizes: Sizes) -> bool:
        named = [one for one in sets if one["metadata"]["name"] in sizes]
        changes = [self.resize(one, sizes[one["metadata"]["name"]]) for one in named]
        return any(changes)

    def grow_new(self, new: Object) -> bool:
        return self.resize(new, size_of_new(self.spec, [size(one) for one in self.old], size(new)))

    def shrink_old(self, new: Object) -> bool:
        return self._resize_each(self.old, sizes_of_old(self.spec, [size(one) for one in self.old], size(new)))

    def stop_old(self) -> bool:
        return self._resize_each(self.old, {one["metadata"]["name"]: 0 for one in self.old})

    def is_rescaled(self) -> bool:
        """Whether ``spec.replicas`` has changed since the ReplicaSets got their sizes."""
        known = [one for one in self.active if DESIRED_REPLICAS in annotations_of(one)]
        return any(number(one, DESIRED_REPLICAS) != self.spec["replicas"] for one in known)

    def rescale(self, new: Object | None) -> None:
        only = self._only_one(new)
        if only is not None:
            self.resize(only, self.spec["replicas"])
        elif new is not None and self._is_saturated(new):
            self.stop_old()
        elif is_rolling(self.spec):
            newest_first = list(reversed(self.active))
            total = self.deployment.get("status", {}).get("replicas", 0)
            self._resize_each(newest_first, proportional(self.spec, [size(one) for one in newest_first], total))
        for one in self.active:
            annotate_size(self.deployment, one)

    def _only_one(self, new: Object | None) -> Object | None:
        """The only one with pods; where none has any, the new one or else the latest."""
        active = self.active
        if len(active) == 1:
            return active[0]
        if active or not self.sets:
            return None
        return self.sets[-1] if new is None else new

    def _is_saturated(self, new: Object) -> bool:
        wanted = {new["spec"]["replicas"], number(new, DESIRED_REPLICAS), size(new).ready_long_enough}
        return wanted == {self.spec["replicas"]}

    # The end of a step

    def clean_up(self) -> None:
        """What is beyond ``revisionHistoryLimit`` goes, the earliest revision first."""
        limit = self.spec["revisionHistoryLimit"]
        going = [one for one in self.old if "deletionTimestamp" not in one["metadata"]]
        surplus = len(going) - limit if limit != _NO_LIMIT else 0
        for one in sorted(going, key=revision)[: max(0, surplus)]:
            if not size(one).total and _is_observed(one):
                self.deleted.append(one["metadata"]["name"])

    def changed(self, before: Sequence[Mapping[str, Any]]) -> list[Object]:
        known = {one["metadata"]["name"]: one for one in before}
        return [one for one in self.sets if one is not self.created and one != known[one["metadata"]["name"]]]


def _is_observed(replica_set: Object) -> bool:
    return bool(replica_set.get("status", {}).get("observedGeneration", 0) >= replica_set["metadata"]["generation"])
