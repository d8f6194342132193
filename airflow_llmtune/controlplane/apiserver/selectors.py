"""Label and field selectors: parsed once, matched against many objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.kinds import EVENT, JOB, NAMESPACE, NODE, POD, SECRET, Kind

Operator = Literal["=", "!=", "in", "notin", "exists", "!"]
Match = Callable[[Mapping[str, Any]], bool]

_KEY = r"(?:[a-z0-9A-Z](?:[-a-z0-9A-Z.]*[a-z0-9A-Z])?/)?[a-z0-9A-Z](?:[-._a-z0-9A-Z]*[a-z0-9A-Z])?"
_VALUE = r"(?:[a-z0-9A-Z](?:[-._a-z0-9A-Z]*[a-z0-9A-Z])?)?"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_EXISTENCE = re.compile(rf"(!?)\s*({_KEY})")
_OUTER_COMMA = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True)
class Requirement:
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "!":
                return not present
            case "=" | "in":
                return present and labels[self.key] in self.values
            case _:
                return not present or labels[self.key] not in self.values


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """``a=b,c!=d,e in (f,g),h notin (i),j,!k``; raises a 400 as the API server does."""
    if not text.strip():
        return ()
    return tuple(_requirement(part.strip(), text) for part in _OUTER_COMMA.split(text))


def _requirement(part: str, whole: str) -> Requirement:
    if found := _SET.fullmatch(part):
        key, word, listed = found.groups()
        values = frozenset(value.strip() for value in listed.split(","))
        return Requirement(key, "in" if word == "in" else "notin", values)
    if found := _EQUALITY.fullmatch(part):
        key, sign, value = found.groups()
        return Requirement(key, "!=" if sign == "!=" else "=", frozenset({value}))
    if found := _EXISTENCE.fullmatch(part):
        bang, key = found.groups()
        return Requirement(key, "!" if bang else "exists")
    raise bad_request(f"unable to parse requirement: invalid label selector {whole!r} at {part!r}")


# What the API server lets a client select on beside metadata.name and metadata.namespace.
_SELECTABLE: dict[Kind, tuple[str, ...]] = {
    POD: (
        *(f"spec.{field}" for field in ("nodeName", "restartPolicy", "schedulerName", "serviceAccountName")),
        "spec.hostNetwork",
        *(f"status.{field}" for field in ("phase", "podIP", "nominatedNodeName")),
    ),
    NODE: ("spec.unschedulable",),
    JOB: ("status.successful",),
    NAMESPACE: ("status.phase",),
    SECRET: ("type",),
    EVENT: (
        *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion")),
        *(f"involvedObject.{field}" for field in ("resourceVersion", "fieldPath")),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


@dataclass(frozen=True)
class FieldTerm:
    path: str
    equal: bool
    value: str

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return (_field(obj, self.path) == self.value) is self.equal


def parse_fields(kind: Kind, text: str) -> tuple[FieldTerm, ...]:
    """``metadata.name=x,status.phase!=Running``; only the fields the kind offers."""
    return tuple(_field_term(kind, part.strip()) for part in text.split(",") if part.strip())


def _field_term(kind: Kind, part: str) -> FieldTerm:
    found = re.fullmatch(r"([^=!]+?)(==|=|!=)(.*)", part)
    if found is None:
        raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
    path, sign, value = found.groups()
    allowed = (
        "metadata.name",
        *(("metadata.namespace",) if kind.namespaced else ()),
        *_SELECTABLE.get(kind, ()),
        *kind.selectable,
    )
    if path not in allowed:
        label = f'"{path}" is not a known field selector: only {", ".join(map(repr, allowed))}'
        raise bad_request(label.replace("'", '"') if kind.is_custom else f"field label not supported: {path}")
    return FieldTerm(path, sign != "!=", value)


def _field(obj: Mapping[str, Any], path: str) -> str:
    if path == "status.successful":
        return str(obj.get("status", {}).get("succeeded", 0))
    if path in {"spec.unschedulable", "spec.hostNetwork"} and path.split(".")[1] not in obj.get("spec", {}):
        return "false"
    if path == "source":
        return str(obj.get("source", {}).get("component", ""))
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def wanted_name(field_selector: str) -> str:
    """The one name a selector asks for; empty when it asks for more than that."""
    found = re.fullmatch(r"\s*metadata\.name==?([^=!,]+)", field_selector)
    return found[1].strip() if found else ""


def matcher(kind: Kind, label_selector: str = "", field_selector: str = "") -> Match | None:
    """One predicate for both selectors, or None when everything matches."""
    labels = parse_labels(label_selector)
    fields = parse_fields(kind, field_selector)
    if not labels and not fields:
        return None

    def matches(obj: Mapping[str, Any]) -> bool:
        present: Mapping[str, str] = obj["metadata"].get("labels") or {}
        return all(term.matches(present) for term in labels) and all(term.matches(obj) for term in fields)

    return matches
