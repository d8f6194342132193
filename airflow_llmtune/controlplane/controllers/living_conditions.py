"""Conditions as Knative's libraries keep them: sorted by type, and ``Ready`` made of those that it depends on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

HAPPY = "Ready"


def says_the_same(status: Object, before: Object) -> bool:
    """Whether nothing but the times of conditions differs: that alone is not worth a write."""
    return _without_times(status) == _without_times(before)


def _without_times(status: Object) -> Object:
    conditions = [{**one, "lastTransitionTime": ""} for one in status.get("conditions") or ()]
    return {**status, "conditions": conditions}


@dataclass
class LivingConditions:
    """Of one status, changed in place. Conditions that ``Ready`` does not depend on have severity ``Info``."""

    status: Object
    dependents: Sequence[str]
    now: str

    def find(self, type_: str) -> Object | None:
        return next((one for one in self.status.get("conditions") or () if one["type"] == type_), None)

    def value(self, type_: str) -> str:
        """``Unknown`` for one that is not there."""
        found = self.find(type_)
        return "Unknown" if found is None else str(found["status"])

    def is_true(self, type_: str) -> bool:
        return self.value(type_) == "True"

    def initialize(self) -> None:
        if self.find(HAPPY) is None:
            self._set(HAPPY, "Unknown")
        for type_ in self.dependents:
            if self.find(type_) is None:
                self._set(type_, "True" if self.is_true(HAPPY) else "Unknown")

    def mark(self, type_: str, value: str, reason: str = "", message: str = "") -> None:
        if value == "True":
            self._set(type_, value, reason, message)
            self._recompute()
        elif value == "False":
            self._set(type_, value, reason, message)
            if type_ in self.dependents:
                self._set(HAPPY, value, reason, message)
        else:
            self._mark_unknown(type_, reason, message)

    def clear(self, type_: str) -> None:
        """Only of those that ``Ready`` does not depend on."""
        conditions = self.status.get("conditions") or []
        self.status["conditions"] = [one for one in conditions if one["type"] != type_]

    def _mark_unknown(self, type_: str, reason: str, message: str) -> None:
        self._set(type_, "Unknown", reason, message)
        if any(self.value(one) == "False" for one in self.dependents):
            if self.value(HAPPY) != "False":
                self._set(HAPPY, "False", reason, message)
        elif type_ in self.dependents:
            self._set(HAPPY, "Unknown", reason, message)

    def _recompute(self) -> None:
        """The newest that is False counts, then the newest that is not known."""
        known = [found for one in self.dependents if (found := self.find(one)) is not None]
        known.sort(key=lambda one: str(one["lastTransitionTime"]), reverse=True)
        for value in ("False", "Unknown"):
            for one in known:
                if one["status"] == value:
                    self._set(HAPPY, value, one.get("reason", ""), one.get("message", ""))
                    return
        self._set(HAPPY, "True" if len(known) == len(self.dependents) else "Unknown")

    def _set(self, type_: str, value: str, reason: str = "", message: str = "") -> None:
        new = {"type": type_, "status": value}
        if type_ != HAPPY and type_ not in self.dependents:
            new["severity"] = "Info"
        new |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
        old = self.find(type_)
        if old is not None and {**new, "lastTransitionTime": old["lastTransitionTime"]} == old:
            return
        others = [one for one in self.status.get("conditions") or () if one["type"] != type_]
        changed = {**new, "lastTransitionTime": self.now}
        self.status["conditions"] = sorted([*others, changed], key=lambda one: str(one["type"]))
