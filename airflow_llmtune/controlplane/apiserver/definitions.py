"""CustomResourceDefinitions as pure functions: defaults, what is refused, conditions, and the kinds they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_llmtune.controlplane.apiserver.columns import Column
from airflow_llmtune.controlplane.apiserver.errors import (
    ApiError,
    Cause,
    forbidden,
    invalid,
    invalid_value,
    required_value,
)
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, KINDS, Kind
from airflow_llmtune.controlplane.apiserver.printer_columns import printer_columns
from airflow_llmtune.controlplane.apiserver.structural import Schema

Object = dict[str, Any]

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"

_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBRESOURCES = ("status", "scale")


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
    found = _shape_causes(obj.get("spec") or {})
    if not found:
        _fill_defaults(obj["spec"])
        found = [*_causes(name, obj["spec"]), *(_immutable_causes(obj["spec"], old["spec"]) if old else ())]
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


def _shape_causes(spec: Mapping[str, Any]) -> list[Cause]:
    """The fields that everything else here relies on, with their types."""
    found = [
        required_value(f"spec.{name}", "") for name in ("group", "names", "versions", "scope") if not spec.get(name)
    ]
    names = spec.get("names")
    if isinstance(names, dict):
        found += [
            required_value(f"spec.names.{name}", "")
            for name in ("plural", "kind")
            if not isinstance(names.get(name), str) or not names[name]
        ]
    elif names:
        found.append(invalid_value("spec.names", "", "must be an object"))
    versions = spec.get("versions")
    if versions and not (isinstance(versions, list) and all(isinstance(one, dict) for one in versions)):
        found.append(invalid_value("spec.versions", "", "must be a list of objects"))
    return found


def _causes(object_name: str, spec: Mapping[str, Any]) -> list[Cause]:
    found = []
    if object_name != f"{spec['names']['plural']}.{spec['group']}":
        found.append(invalid_value("metadata.name", object_name, 'must be spec.names.plural+"."+spec.group'))
    if "." not in spec["group"]:
        found.append(invalid_value("spec.group", spec["group"], "should be a domain with at least one dot"))
    found += [
        invalid_value(f"spec.names.{name}", spec["names"][name], "must be a DNS-1035 label")
        for name in ("plural", "singular")
        if not _LABEL_1035.fullmatch(str(spec["names"][name]))
    ]
    if spec["scope"] not in {"Cluster", "Namespaced"}:
        found.append(_unsupported("spec.scope", spec["scope"], '"Cluster", "Namespaced"'))
    strategy = spec["conversion"].get("strategy")
    if strategy != "None":
        found.append(_unsupported("spec.conversion.strategy", strategy, '"None"'))
    if sum(1 for version in spec["versions"] if version.get("storage")) != 1:
        detail = "must have exactly one version marked as storage version"
        found.append(invalid_value("spec.versions", "", detail))
    for index, version in enumerate(spec["versions"]):
        found += _version_causes(f"spec.versions[{index}]", version)
    return found


def _version_causes(path: str, version: Mapping[str, Any]) -> list[Cause]:
    found = []
    if not _LABEL_1035.fullmatch(str(version.get("name", ""))):
        found.append(invalid_value(f"{path}.name", version.get("name", ""), "must be a DNS-1035 label"))
    unknown = [one for one in version.get("subresources") or {} if one not in _SUBRESOURCES]
    found += [_unsupported(f"{path}.subresources", one, '"status", "scale"') for one in unknown]
    where = f"{path}.schema.openAPIV3Schema"
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        return [*found, required_value(where, "schemas are required")]
    if schema.get("type") != "object":
        found.append(invalid_value(f"{where}.type", schema.get("type", ""), "must be object at the root"))
    return [*found, *_schema_causes(where, schema)]


def _schema_causes(path: str, schema: Any) -> list[Cause]:
    if not isinstance(schema, dict):
        return [invalid_value(path, "", "must be an object")]
    found = []
    if not isinstance(schema.get("pattern", ""), str):
        found.append(invalid_value(f"{path}.pattern", "", "must be a string"))
    if not isinstance(schema.get("properties") or {}, dict):
        return [*found, invalid_value(f"{path}.properties", "", "must be an object")]
    below = {f"{path}.properties[{name}]": one for name, one in (schema.get("properties") or {}).items()}
    if "items" in schema:
        below[f"{path}.items"] = schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        below[f"{path}.additionalProperties"] = schema["additionalProperties"]
    return found + [cause for where, one in below.items() for cause in _schema_causes(where, one)]


def _immutable_causes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Cause]:
    pairs = [("spec.group", new["group"], old["group"]), ("spec.scope", new["scope"], old["scope"])]
    pairs += [(f"spec.names.{name}", new["names"][name], old["names"][name]) for name in ("plural", "kind")]
    return [invalid_value(path, now, "field is immutable") for path, now, before in pairs if now != before]


def _unsupported(path: str, value: Any, supported: str) -> Cause:
    return Cause(path, f'Unsupported value: "{value}": supported values: {supported}', "FieldValueNotSupported")


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
