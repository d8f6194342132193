"""Rules for ``metadata``: what a create fills in, what an update may not touch, what names may be."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_llmtune.controlplane.apiserver.errors import (
    Cause,
    bad_request,
    conflict,
    forbidden_value,
    invalid,
    invalid_value,
    required_value,
)
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, SERVICE

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

# No vowels and no look-alikes: a generated name never spells a word and can be read aloud.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MAX_GENERATED_BASE = 58
_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_1123_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

# What the server owns: a client's value is replaced by the stored one, without an error.
SERVER_OWNED = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
)


KNOWN_FIELDS = frozenset(
    {
        *SERVER_OWNED,
        "annotations",
        "finalizers",
        "labels",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    }
)


_COLLECTIONS = frozenset({"annotations", "finalizers", "labels", "ownerReferences"})


def check_shape(kind: Kind, obj: Mapping[str, Any]) -> None:
    """Refuse what a typed decoder would: another kind, or fields of the wrong JSON types.

    Nulls and unknown fields vanish from metadata.
    Controllers, kubelet and garbage collector rely on it: they read these fields without looking at their types.
    """
    for field in ("spec", "status"):
        if not isinstance(obj.get(field) or {}, dict):
            raise _wrong_type(kind, field, obj[field], f"v1.{kind.name}{field.capitalize()}", struct=kind.name)
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        value = obj.get(field, expected)
        if value != expected:
            what = "API version" if field == "apiVersion" else "kind"
            raise bad_request(f"the {what} in the data ({value}) does not match the expected {what} ({expected})")
    metadata = obj.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _wrong_type(kind, "metadata", metadata, "v1.ObjectMeta")
    # To a typed decoder a null is an absent field, and so is an empty collection to the encoder after it.
    absent = [name for name, value in metadata.items() if value is None or (value in ({}, []) and name in _COLLECTIONS)]
    for field in [*absent, *(name for name in metadata if name not in KNOWN_FIELDS)]:
        metadata.pop(field, None)
    for field in ("labels", "annotations"):
        _check_string_map(kind, f"metadata.{field}", metadata.get(field))
    _check_strings(kind, "metadata", metadata, ("name", "generateName", "namespace", "uid", "resourceVersion"))
    _check_list(kind, "finalizers", metadata.get("finalizers", []), str, "string")
    owners = metadata.get("ownerReferences", [])
    _check_list(kind, "ownerReferences", owners, dict, "v1.OwnerReference")
    for owner in owners:
        _check_strings(kind, "metadata.ownerReferences", owner, ("apiVersion", "kind", "name", "uid"))


def _check_strings(kind: Kind, path: str, obj: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    for field in fields:
        if not isinstance(obj.get(field, ""), str):
            raise _wrong_type(kind, f"{path}.{field}", obj[field], "string")


def _check_list(kind: Kind, field: str, value: Any, expected: type, go_name: str) -> None:
    if not isinstance(value, list):
        raise _wrong_type(kind, f"metadata.{field}", value, f"[]{go_name}")
    for one in value:
        if not isinstance(one, expected):
            raise _wrong_type(kind, f"metadata.{field}", one, go_name)


def _check_string_map(kind: Kind, field: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _wrong_type(kind, field, value, "map[string]string")
    for entry in value.values():
        if not isinstance(entry, str):
            raise _wrong_type(kind, field, entry, "string")


def _wrong_type(kind: Kind, field: str, value: Any, wanted: str, *, struct: str = "ObjectMeta") -> Exception:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    got = names.get(type(value), "null")
    return bad_request(
        f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: json: cannot unmarshal '
        f"{got} into Go struct field {struct}.{field} of type {wanted}"
    )


def generated_name(base: str) -> str:
    suffix = "".join(random.choices(_NAME_ALPHABET, k=5))  # noqa: S311 - a name, no secret
    return base[:_MAX_GENERATED_BASE] + suffix


def fill_for_create(kind: Kind, metadata: dict[str, Any], namespace: str, now: str) -> None:
    """Set what the server sets; what clients may not set (uid, deletion, version) is dropped."""
    for field in (
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ):
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated_name(metadata["generateName"])
    if kind.namespaced:
        metadata["namespace"] = namespace
    metadata["uid"] = str(uuid4())
    metadata["creationTimestamp"] = now
    if kind.has_status or kind.is_custom:
        metadata["generation"] = 1


def carry_over(kind: Kind, new: dict[str, Any], old: Mapping[str, Any]) -> None:
    """Check the preconditions an updated object carries and restore what only the server may change."""
    name = old["name"]
    if new.get("uid") and new["uid"] != old["uid"]:
        raise conflict(kind, name, _uid_mismatch(new["uid"], old["uid"]))
    version = new.get("resourceVersion")
    if version and version != old["resourceVersion"]:
        raise conflict(kind, name)
    if not version and kind.is_custom:
        # Custom resources know no unconditional update.
        raise invalid(kind, name, [invalid_value("metadata.resourceVersion", 0, "must be specified for an update")])
    for field in SERVER_OWNED:
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)
    new["resourceVersion"] = old["resourceVersion"]
    if "managedFields" in old:
        new.setdefault("managedFields", old["managedFields"])
    _check_finalizers(kind, new, old)


def of(obj: dict[str, Any]) -> dict[str, Any]:
    """The object's metadata, made when it has none."""
    metadata = obj.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("the object provided is unrecognized (metadata must be of type Object)")
    return metadata


def named(obj: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under the name of its URL, which it may repeat."""
    metadata = of(obj)
    given = metadata["name"] = metadata.get("name") or name
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
    return obj


def keep_identity(patched: dict[str, Any], current: Mapping[str, Any]) -> None:
    """A patch may not rename; without a resourceVersion of its own it applies to the current version."""
    for field in ("name", "namespace"):
        given = patched.get(field) or current.get(field)
        if given != current.get(field):
            raise bad_request(
                f"the {field} of the object ({given}) does not match the {field} on the URL ({current.get(field)})"
            )
        if field in current:
            patched[field] = current[field]
    patched["resourceVersion"] = patched.get("resourceVersion") or current["resourceVersion"]


def check_preconditions(kind: Kind, metadata: Mapping[str, Any], uid: str | None, resource_version: str | None) -> None:
    if uid is not None and uid != metadata["uid"]:
        raise conflict(kind, metadata["name"], _uid_mismatch(uid, metadata["uid"]))
    current = metadata["resourceVersion"]
    if resource_version is not None and resource_version != current:
        why = f"Precondition failed: ResourceVersion in precondition: {resource_version}, "
        raise conflict(kind, metadata["name"], why + f"ResourceVersion in object meta: {current}")


def _uid_mismatch(wanted: str, actual: str) -> str:
    return f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}"


def _check_finalizers(kind: Kind, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    added = [one for one in new.get("finalizers") or [] if one not in (old.get("finalizers") or [])]
    if added and "deletionTimestamp" in old:
        listed = ", ".join(f'"{one}"' for one in added)
        detail = (
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
        )
        raise invalid(kind, old["name"], [forbidden_value("metadata.finalizers", detail)])


def check_rules(kind: Kind, metadata: Mapping[str, Any]) -> None:
    """Names, labels and owners; all mistakes in one answer."""
    causes = [
        *_name_causes(kind, metadata.get("name", "")),
        *label_causes("metadata.labels", metadata.get("labels") or {}),
        *_annotation_causes(metadata.get("annotations") or {}),
        *_owner_causes(metadata.get("ownerReferences") or []),
    ]
    if causes:
        raise invalid(kind, metadata.get("name", ""), causes)


def _name_causes(kind: Kind, name: str) -> list[Cause]:
    field = "metadata.name"
    if not name:
        return [required_value(field, "name or generateName is required")]
    if kind is NAMESPACE:
        pattern, rule, longest = _LABEL_1123, _LABEL_1123_RULE, 63
    elif kind is SERVICE:
        pattern, rule, longest = _LABEL_1035, _LABEL_1035_RULE, 63
    else:
        pattern, rule, longest = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    causes = []
    if len(name) > longest:
        causes.append(invalid_value(field, name, f"must be no more than {longest} characters"))
    if not pattern.fullmatch(name):
        causes.append(invalid_value(field, name, rule))
    return causes


def dns_label_causes(field: str, name: str) -> list[Cause]:
    """For names that are no object's: of containers, of volumes."""
    causes = []
    if len(name) > 63:
        causes.append(invalid_value(field, name, "must be no more than 63 characters"))
    if not _LABEL_1123.fullmatch(name):
        causes.append(invalid_value(field, name, _LABEL_1123_RULE))
    return causes


def _key_causes(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(prefix)) or not _QUALIFIED.fullmatch(name):
        return [invalid_value(field, key, _QUALIFIED_RULE)]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 characters")]
    return []


def label_causes(field: str, labels: Mapping[str, str]) -> list[Cause]:
    causes = []
    for key, value in labels.items():
        causes += _key_causes(field, key)
        if len(value) > 63:
            causes.append(invalid_value(field, value, "must be no more than 63 characters"))
        if not _LABEL_VALUE.fullmatch(value):
            causes.append(invalid_value(field, value, _LABEL_VALUE_RULE))
    return causes


def _annotation_causes(annotations: Mapping[str, str]) -> list[Cause]:
    return [cause for key in annotations for cause in _key_causes("metadata.annotations", key.lower())]


def _owner_causes(owners: list[Any]) -> list[Cause]:
    causes = []
    for index, owner in enumerate(owners):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                detail = f"{field} must not be empty"
                causes.append(invalid_value(f"metadata.ownerReferences[{index}].{field}", "", detail))
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        first, second = (f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers[:2])
        detail = (
            f'Only one reference can have Controller set to true. Found "true" in references for {first} and {second}'
        )
        causes.append(Cause("metadata.ownerReferences", f"Invalid value: {detail}"))
    return causes
