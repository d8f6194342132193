"""HTTPRoutes as a list of matches in the order in which Gateway API lets them apply. Pure.

Where it leaves the order of path types open, an exact path comes first, then prefixes, then expressions, which have to
fit the whole path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from airflow_llmtune.controlplane.gateway.request import Asked

Object = Mapping[str, Any]

_PATH_TYPES = ("Exact", "PathPrefix", "RegularExpression")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Backend:
    """A Service and the port that requests go to."""

    namespace: str
    service: str
    port: int
    weight: int = 1
    filters: tuple[Object, ...] = ()


@dataclass(frozen=True)
class Rule:
    key: tuple[str, str, int]
    """Namespace and name of its route, and its place there."""
    backends: tuple[Backend, ...]
    filters: tuple[Object, ...] = ()
    timeout_seconds: float | None = None
    """Until an answer begins; None waits for ever."""

    @property
    def shares(self) -> tuple[object, ...]:
        """What its share of the requests depends on."""
        return (self.key, *((one.service, one.port, one.weight) for one in self.backends))


@dataclass(frozen=True)
class Match:
    rule: Rule
    hostname: str
    path_type: str
    path: str
    method: str
    headers: tuple[Object, ...]
    parameters: tuple[Object, ...]

    def fits(self, asked: Asked) -> bool:
        return (
            fits_hostname(self.hostname, asked.hostname)
            and _fits_path(self.path_type, self.path, asked.path)
            and self.method in {"", asked.method}
            and all(_fits_value(one, asked.header(one["name"])) for one in self.headers)
            and all(_fits_value(one, asked.parameters.get(one["name"])) for one in self.parameters)
        )


def matches(routes: Iterable[Object]) -> list[Match]:
    """Of admitted routes, so with all defaults; what comes first applies. Routes come in any order."""
    ranked = [(_rank(route, match), match) for route in routes for match in _matches_of(route)]
    return [match for _, match in sorted(ranked, key=lambda pair: pair[0])]


def find(candidates: Sequence[Match], asked: Asked) -> Match | None:
    return next((match for match in candidates if match.fits(asked)), None)


def _matches_of(route: Object) -> Iterable[Match]:
    metadata, spec = route["metadata"], route["spec"]
    for index, stated in enumerate(spec["rules"]):
        rule = Rule(
            (metadata["namespace"], metadata["name"], index),
            tuple(_backend(metadata["namespace"], one) for one in stated.get("backendRefs") or ()),
            tuple(stated.get("filters") or ()),
            timeout_seconds(stated.get("timeouts") or {}),
        )
        for one in stated["matches"]:
            for hostname in spec.get("hostnames") or ("",):
                yield Match(
                    rule,
                    hostname,
                    one["path"]["type"],
                    one["path"]["value"],
                    one.get("method", ""),
                    tuple(one.get("headers") or ()),
                    tuple(one.get("queryParams") or ()),
                )


def is_own_service(namespace: str, stated: Object) -> bool:
    """Whether a backend is of a kind and in a place that routes of this namespace may send requests to."""
    is_service = (stated["group"], stated["kind"]) == ("", "Service")
    return is_service and stated.get("namespace", namespace) == namespace


def _backend(namespace: str, stated: Object) -> Backend:
    """One that may not be used gets its share all the same, and nobody answers there."""
    service = stated["name"] if is_own_service(namespace, stated) else ""
    return Backend(namespace, service, stated.get("port", 0), stated["weight"], tuple(stated.get("filters") or ()))


def _rank(route: Object, match: Match) -> tuple[Any, ...]:
    """Smaller comes first; equal ones stay in the order of their rules."""
    is_wildcard = match.hostname.startswith("*")
    created = route["metadata"].get("creationTimestamp", "")
    return (
        (not match.hostname, is_wildcard, -len(match.hostname)),
        (_PATH_TYPES.index(match.path_type), -len(match.path)),
        (not match.method, -len(match.headers), -len(match.parameters)),
        (created, *match.rule.key),
    )


def fits_hostname(pattern: str, hostname: str) -> bool:
    if pattern.startswith("*"):
        return hostname.endswith(pattern[1:]) and len(hostname) >= len(pattern)
    return pattern in {"", hostname}


def _fits_path(type_: str, wanted: str, path: str) -> bool:
    if type_ == "Exact":
        return path == wanted
    if type_ == "RegularExpression":
        return _fits_expression(wanted, path)
    prefix = wanted.rstrip("/")
    return path == prefix or path.startswith(f"{prefix}/")


def _fits_value(stated: Object, value: str | None) -> bool:
    if value is None:
        return False
    if stated["type"] == "RegularExpression":
        return _fits_expression(stated["value"], value)
    return bool(stated["value"] == value)


def _fits_expression(expression: str, text: str) -> bool:
    """By the library that never goes back over the text; it keeps what it has compiled."""
    return re2.fullmatch(expression, text) is not None


def timeout_seconds(timeouts: Mapping[str, str]) -> float | None:
    """The shorter of the two that there are; 0 means none."""
    found = [seconds for text in timeouts.values() if (seconds := _seconds(text))]
    return min(found, default=None)


def _seconds(duration: str) -> float:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
