"""A container's environment and the ``$(VAR)`` expansion. Pure but for the lookups handed in."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

Lookup = Callable[[str, str], dict[str, Any] | None]
"""Finds a Secret or ConfigMap: kind's name and object's name in, the object out."""

_REFERENCE = re.compile(r"\$\$|\$\(([^()]+)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")

LOOPBACK = "127.0.0.1"


class ConfigError(Exception):
    """The container cannot be started as specified; Kubernetes calls this ``CreateContainerConfigError``."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(VAR)`` becomes its value, an unknown one stays, ``$$`` becomes ``$``."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return values.get(name, match[0])

    return _REFERENCE.sub(replace, text)


def container_environment(container: dict[str, Any], pod: dict[str, Any], lookup: Lookup) -> dict[str, str]:
    """The variables the pod asks for; later ones win and may refer to earlier ones."""
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        values |= _from_source(source, lookup)
    for variable in container.get("env") or ():
        value = _value(variable, pod, values, lookup)
        if value is not None:
            values[variable["name"]] = value
    return values


def told_of_pod(container: dict[str, Any]) -> set[str]:
    """The variables that tell a pod of itself, which are no addresses: a Trial's name may be a Service's too."""
    sources = {variable["name"]: variable.get("valueFrom") or {} for variable in container.get("env") or ()}
    return {name for name, source in sources.items() if "fieldRef" in source}


def _from_source(source: dict[str, Any], lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
        if field in source:
            data = _data(kind, source[field], lookup)
            return {f"{prefix}{key}": value.decode() for key, value in data.items()}
    return {}


def _value(variable: dict[str, Any], pod: dict[str, Any], values: Mapping[str, str], lookup: Lookup) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(variable.get("value") or "", values)
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if field in source:
            return _key_value(kind, source[field], lookup)
    raise ConfigError(f"env {variable['name']}: valueFrom {', '.join(source)} is not supported here")


def _key_value(kind: str, reference: dict[str, Any], lookup: Lookup) -> str | None:
    data = _data(kind, reference, lookup)
    if reference["key"] in data:
        return data[reference["key"]].decode()
    if reference.get("optional"):
        return None
    raise ConfigError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")


def _data(kind: str, reference: dict[str, Any], lookup: Lookup) -> dict[str, bytes]:
    found = lookup(kind, reference["name"])
    if found is not None:
        return data_of(kind, found)
    if reference.get("optional"):
        return {}
    raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')


def data_of(kind: str, obj: dict[str, Any]) -> dict[str, bytes]:
    """The entries of a Secret or ConfigMap as bytes."""
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    texts = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return texts | binary


def field_value(pod: dict[str, Any], path: str) -> str:
    """The downward API's fields."""
    metadata, spec = pod["metadata"], pod["spec"]
    address = address_of(pod)
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": LOOPBACK,
        "status.hostIPs": LOOPBACK,
        "status.podIP": address,
        "status.podIPs": address,
    }
    if path not in fields:
        raise ConfigError(f"fieldPath {path} is not supported here")
    return str(fields[path])


def address_of(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("podIP") or LOOPBACK)


def to_loopback(text: str, hosts: Mapping[str, str]) -> str:
    """A value that is an address of a Service (``host``, ``host:port``, ``scheme://host/…``) with its number in it.

    A pod's name below its Service (``host.service``) counts as well, also before that pod is there.
    """
    match = re.fullmatch(r"(?P<scheme>\w+://)?(?P<host>[a-z0-9.-]+)(?P<rest>(?::\d+)?(?:/.*)?)", text)
    if match is None:
        return text
    address = hosts.get(match["host"]) or hosts.get(match["host"].partition(".")[2])
    return text if address is None else f"{match['scheme'] or ''}{address}{match['rest']}"


def pod_host_names(pod: Mapping[str, Any]) -> set[str]:
    """Below its Service: none for a pod that names none or has no host name of its own."""
    spec = pod["spec"]
    if not (spec.get("hostname") and spec.get("subdomain")):
        return set()
    services = service_host_names(spec["subdomain"], pod["metadata"]["namespace"])
    return {f"{spec['hostname']}.{service}" for service in services}


def service_host_names(name: str, namespace: str) -> set[str]:
    return {name, *(f"{name}.{namespace}{tail}" for tail in ("", ".svc", ".svc.cluster.local"))}
