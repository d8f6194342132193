"""CustomResourceDefinitions as pure functions: defaults, what is refused, conditions, and the kinds they make."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_llmtune.controlplane.apiserver.columns import Column
from airflow_llmtune.controlplane.apiserver.definition_schema import DEFINITION_SPEC
from airflow_llmtune.controlplane.apiserver.errors import ApiError, Cause, forbidden, invalid, invalid_value
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, KINDS, Kind
from airflow_llmtune.controlplane.apiserver.printer_columns import printer_columns
from airflow_llmtune.controlplane.apiserver.structural import Schema, causes, fill_defaults, pattern_mistake

Object = dict[str, Any]

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True)
class CustomVersion:
    """One served version of a custom resource."""

    kind: Kind
    schema: Schema = field(compare=False)
    columns: tuple[Column, ...] = field(compare=False)
    is_terminating: bool = False
    warning: str = ""


def definition_name(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}"


BUILT_IN_NAMES = frozenset(definition_name(kind) for kind in KINDS if kind.is_custom)


def built_in_definition(kind: Kind) -> Object:
    """What a cluster shows of a kind that is always served here; its fields are left open, as in Katib's own."""
    version: Object = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    if kind.has_status:
        version["subresources"] = {"status": {}}
    names: Object = {"plural": kind.plural, "singular": kind.singular, "kind": kind.name}
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    scope = "Namespaced" if kind.namespaced else "Cluster"
    spec = {"group": kind.group, "names": names, "scope": scope, "versions": [version]}
    return {"metadata": {"name": definition_name(kind)}, "spec": spec}


def custom_versions(definition: Mapping[str, Any]) -> list[CustomVersion]:
    """The kinds of an established definition, the version that is preferred first."""
    conditions = definition.get("status", {}).get("conditions") or ()
    if not any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
        return []
    spec, names = definition["spec"], definition["status"]["acceptedNames"]
    served = [version for version in spec["versions"] if version.get("served")]
    converts = len(spec["versions"]) > 1 or len(definition["status"].get("storedVersions") or ()) > 1
    found = [
        CustomVersion(
            kind=Kind(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                names["singular"],
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                has_status="status" in (version.get("subresources") or {}),
                converts=converts,
                selectable=tuple(one["jsonPath"].lstrip(".") for one in version.get("selectableFields") or ()),
            ),
            schema=version["schema"]["openAPIV3Schema"],
            columns=printer_columns(version.get("additionalPrinterColumns")),
            is_terminating="deletionTimestamp" in definition["metadata"],
            warning=_deprecation(spec, version),
        )
        for version in served
    ]
    return sorted(found, key=lambda one: version_priority(one.kind.version))


def _deprecation(spec: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    if not version.get("deprecated"):
        return ""
    text = f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
    return str(version.get("deprecationWarning") or text)


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order: v2, v1, v1beta2, v1beta1, v1alpha1, then everything else by name."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return (3, 0, 0, version)
    major, stage, minor = found.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), "")


def prepare_definition(obj: Object, old: Object | None, others: Iterable[CustomVersion], now: str) -> None:
    """In place: defaults, the finalizer and the status; raises ApiError for what a real server refuses."""
    name = obj["metadata"].get("name", "")
    if name in BUILT_IN_NAMES and old is not None and obj.get("spec") != old.get("spec"):
        raise built_in_is_fixed(name, "changed")
    spec = obj["spec"] = _without_nulls(obj.get("spec") or {})
    found = causes(spec, DEFINITION_SPEC, "spec")
    if not found:
        _fill_defaults(spec)
        found = [*_causes(name, spec), *(_immutable_causes(spec, old["spec"]) if old else ())]
    if found:
        raise invalid(CUSTOM_RESOURCE_DEFINITION, name, found)
    if old is None:
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if CLEANUP_FINALIZER not in finalizers:
            finalizers.append(CLEANUP_FINALIZER)
    obj["status"] = _status(obj, old, others, now)


def built_in_is_fixed(name: str, verb: str) -> ApiError:
    why = f"this control plane serves the resource itself, so that its definition cannot be {verb}"
    return forbidden(why, CUSTOM_RESOURCE_DEFINITION, name)


def _fill_defaults(spec: Object) -> None:
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})


def _without_nulls(value: Any) -> Any:
    """A null is an absent field to a typed decoder, but a default may be one."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None or name == "default"}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _causes(object_name: str, spec: Mapping[str, Any]) -> list[Cause]:
    names, versions = spec["names"], spec["versions"]
    found = []
    if object_name != f"{names['plural']}.{spec['group']}":
        found.append(invalid_value("metadata.name", object_name, 'must be spec.names.plural+"."+spec.group'))
    if "." not in spec["group"]:
        found.append(invalid_value("spec.group", spec["group"], "should be a domain with at least one dot"))
    if sum(1 for version in versions if version.get("storage")) != 1:
        detail = "must have exactly one version marked as storage version"
        found.append(invalid_value("spec.versions", "", detail))
    if len({version["name"] for version in versions}) < len(versions):
        found.append(invalid_value("spec.versions", "", "must contain unique version names"))
    for index, version in enumerate(versions):
        where, schema = f"spec.versions[{index}].schema.openAPIV3Schema", version["schema"]["openAPIV3Schema"]
        if schema.get("type") != "object":
            found.append(invalid_value(f"{where}.type", schema.get("type", ""), "must be object at the root"))
        found += [cause for path, one in _schemas(where, schema) for cause in _value_causes(path, one)]
    return found


def _schemas(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """A schema and all that it consists of."""
    yield path, schema
    below = {f"{path}.properties[{name}]": one for name, one in schema.get("properties", {}).items()}
    below |= {f"{path}.{word}": schema[word] for word in ("additionalProperties", "items", "not") if word in schema}
    for word in ("allOf", "anyOf", "oneOf"):
        below |= {f"{path}.{word}[{index}]": one for index, one in enumerate(schema.get(word, ()))}
    for where, one in below.items():
        if isinstance(one, Mapping):
            yield from _schemas(where, one)


def _value_causes(path: str, schema: Schema) -> list[Cause]:
    """What every object would be refused for."""
    found = []
    mistake = pattern_mistake(schema.get("pattern", ""))
    if mistake:
        detail = f"must be a valid regular expression, but isn't: {mistake}"
        found.append(invalid_value(f"{path}.pattern", schema["pattern"], detail))
    elif "default" in schema:
        default = copy.deepcopy(schema["default"])
        fill_defaults(default, schema)
        found += causes(default, schema, f"{path}.default")
    return found


def _immutable_causes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Cause]:
    pairs = [("spec.group", new["group"], old["group"]), ("spec.scope", new["scope"], old["scope"])]
    pairs += [(f"spec.names.{name}", new["names"][name], old["names"][name]) for name in ("plural", "kind")]
    return [invalid_value(path, now, "field is immutable") for path, now, before in pairs if now != before]


def _status(obj: Object, old: Object | None, others: Iterable[CustomVersion], now: str) -> Object:
    spec = obj["spec"]
    clash = _clash(spec, others)
    before = (old or {}).get("status") or {}
    accepted = before.get("acceptedNames") or {"plural": "", "kind": ""} if clash else dict(spec["names"])
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored = [*(before.get("storedVersions") or ())]
    established = not clash or any(
        one["type"] == "Established" and one["status"] == "True" for one in before.get("conditions") or ()
    )
    conditions = [
        ("NamesAccepted", not clash, clash[0] if clash else "NoConflicts", clash[1] if clash else "no conflicts found"),
        (
            "Established",
            established,
            "InitialNamesAccepted" if established else "NotAccepted",
            "the initial names have been accepted" if established else "not all names are accepted",
        ),
    ]
    return {
        "conditions": [_condition(*one, before.get("conditions") or (), now) for one in conditions],
        "acceptedNames": accepted,
        "storedVersions": stored if storage in stored else [*stored, storage],
    }


def _clash(spec: Mapping[str, Any], others: Iterable[CustomVersion]) -> tuple[str, str] | None:
    """Reason and message when another resource of the group has one of the names."""
    names = spec["names"]
    mine = {names["plural"], names["singular"], *(names.get("shortNames") or ())}
    for one in others:
        kind = one.kind
        if kind.group != spec["group"] or kind.plural == names["plural"]:
            continue
        for name in sorted(mine & {kind.plural, kind.singular, *kind.short_names}):
            return "NameConflict", f'"{name}" is already in use'
        if kind.name == names["kind"]:
            return "KindConflict", f'"{kind.name}" is already in use'
    return None


def _condition(
    type_: str, is_true: bool, reason: str, message: str, before: Iterable[Mapping[str, Any]], now: str
) -> Object:
    status = "True" if is_true else "False"
    same = next((one for one in before if one["type"] == type_ and one["status"] == status), None)
    since = same["lastTransitionTime"] if same else now
    return {"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
