"""When a container counts as started, ready or unhealthy: what the results of its probes add up to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Object = dict[str, Any]
ProbeKind = Literal["startup", "readiness", "liveness"]

_FIELDS: dict[ProbeKind, str] = {
    "startup": "startupProbe",
    "readiness": "readinessProbe",
    "liveness": "livenessProbe",
}


@dataclass(frozen=True)
class Probe:
    kind: ProbeKind
    spec: Object
    """With the defaults of the API server."""

    @property
    def initial_delay_seconds(self) -> float:
        return float(self.spec.get("initialDelaySeconds", 0))

    @property
    def period_seconds(self) -> float:
        return float(self.spec["periodSeconds"])

    @property
    def timeout_seconds(self) -> float:
        return float(self.spec["timeoutSeconds"])

    @property
    def grace_seconds(self) -> float | None:
        """For the end of a container that fails it, if it is not the pod's."""
        seconds = self.spec.get("terminationGracePeriodSeconds")
        return None if seconds is None else float(seconds)


def probe_of(container: Object, kind: ProbeKind) -> Probe | None:
    spec = container.get(_FIELDS[kind])
    return Probe(kind, spec) if spec else None


def has_probes(container: Object) -> bool:
    return any(container.get(field) for field in _FIELDS.values())


def comes_up_at_once(container: Object) -> bool:
    """Whether it counts as started as soon as it runs."""
    return not container.get("startupProbe") and not (container.get("lifecycle") or {}).get("postStart")


def is_ready_at_once(container: Object) -> bool:
    """Whether it is ready as soon as it has started."""
    return not container.get("readinessProbe")


class Tally:
    """Results in a row: a verdict stands until as many of the other kind as the threshold says have come."""

    def __init__(self, probe: Probe) -> None:
        self._needed = {True: probe.spec["successThreshold"], False: probe.spec["failureThreshold"]}
        self._last: bool | None = None
        self._run = 0

    def add(self, is_success: bool) -> bool | None:
        """The verdict of this result and those before it; None when it takes more."""
        self._run = self._run + 1 if is_success is self._last else 1
        self._last = is_success
        return is_success if self._run >= self._needed[is_success] else None
