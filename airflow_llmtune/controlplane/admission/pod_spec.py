"""What the API server checks in a pod's spec, as far as the kubelet here relies on it: names and paths become files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_llmtune.controlplane.admission.job_struct import POD_SPEC
from airflow_llmtune.controlplane.admission.probes import init_probe_causes, port_name_mistakes, probe_causes
from airflow_llmtune.controlplane.admission.structs import Struct, UnmarshalError, unmarshal
from airflow_llmtune.controlplane.apiserver.errors import Cause, bad_request, invalid_value, required_value
from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.apiserver.metadata import dns_label_causes
from airflow_llmtune.controlplane.quantities import QuantityError, parse

Object = dict[str, Any]

_LARGEST_PORT = 65535


def typed(kind: Kind, type_: Struct, obj: Object, *, path: str = "spec") -> Object:
    """The object's spec as a typed decoder reads it, without nulls and unknown fields; raises 400 for a wrong type."""
    try:
        read: Object = unmarshal(type_, obj.get("spec") or {}, path=path)
    except UnmarshalError as error:
        raise bad_request(
            f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {error}'
        ) from None
    return read


def typed_pod_spec(kind: Kind, pod: Object) -> Object:
    return typed(kind, POD_SPEC, pod)


def pod_spec_causes(path: str, spec: Object) -> list[Cause]:
    """What is wrong with a spec that has passed ``typed``."""
    if not spec.get("containers"):
        return [required_value(f"{path}.containers", "")]
    causes = []
    containers = [
        (f"{path}.{field}[{index}]", container)
        for field in ("initContainers", "containers")
        for index, container in enumerate(spec.get(field, ()))
    ]
    for where, container in containers:
        causes += _container_causes(where, container)
        causes += probe_causes(where, container, spec)
        if where.startswith(f"{path}.initContainers"):
            causes += init_probe_causes(where, container)
    volumes = [(f"{path}.volumes[{index}]", volume) for index, volume in enumerate(spec.get("volumes", ()))]
    for where, volume in volumes:
        causes += [*_name_causes(where, volume), *_item_causes(where, volume)]
    for field in ("terminationGracePeriodSeconds", "activeDeadlineSeconds"):
        if spec.get(field, 0) < 0:
            causes.append(invalid_value(f"{path}.{field}", spec[field], "must be greater than or equal to 0"))
    return [*causes, *_duplicates(containers), *_duplicates(volumes)]


def _container_causes(path: str, container: Object) -> list[Cause]:
    causes = _name_causes(path, container)
    if not container.get("image"):
        causes.append(required_value(f"{path}.image", ""))
    for index, variable in enumerate(container.get("env", ())):
        if not variable.get("name"):
            causes.append(required_value(f"{path}.env[{index}].name", ""))
    for index, port in enumerate(container.get("ports", ())):
        causes += _port_causes(f"{path}.ports[{index}].containerPort", port.get("containerPort", 0))
        name = port.get("name")
        if name:
            causes += [invalid_value(f"{path}.ports[{index}].name", name, rule) for rule in port_name_mistakes(name)]
    for index, mount in enumerate(container.get("volumeMounts", ())):
        where = f"{path}.volumeMounts[{index}]"
        causes += [required_value(f"{where}.{field}", "") for field in ("name", "mountPath") if not mount.get(field)]
        causes += _path_causes(f"{where}.subPath", mount.get("subPath", ""))
    return [*causes, *resource_causes(f"{path}.resources", container.get("resources") or {})]


def _port_causes(path: str, port: int) -> list[Cause]:
    if not port:
        return [required_value(path, "")]
    if 0 < port <= _LARGEST_PORT:
        return []
    return [invalid_value(path, port, f"must be between 1 and {_LARGEST_PORT}, inclusive")]


def resource_causes(path: str, resources: Object) -> list[Cause]:
    """Quantities that are none, and requests above their limits; devices cannot be asked for without a limit."""
    causes = [cause for field in ("limits", "requests") for cause in _quantity_causes(path, field, resources)]
    if causes:
        return causes
    limits = resources.get("limits") or {}
    for name, request in (resources.get("requests") or {}).items():
        is_device = "/" in name
        if name not in limits:
            if is_device:
                text = "Limit must be set for non overcommitable resources"
                causes.append(required_value(f"{path}.limits", text))
        elif is_device and parse(request) != parse(limits[name]):
            text = f"must be equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", str(request), text))
        elif parse(request) > parse(limits[name]):
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", str(request), text))
    return causes


def _quantity_causes(path: str, field: str, resources: Object) -> list[Cause]:
    causes = []
    for name, quantity in (resources.get(field) or {}).items():
        where = f"{path}.{field}[{name}]"
        try:
            amount = parse(quantity)
        except QuantityError as error:
            causes.append(invalid_value(where, str(quantity), str(error)))
            continue
        if amount < 0:
            causes.append(invalid_value(where, str(quantity), "must be greater than or equal to 0"))
        elif "/" in name and amount.denominator != 1:
            causes.append(invalid_value(where, str(quantity), "must be an integer"))
    return causes


def _name_causes(path: str, named: Object) -> list[Cause]:
    name = named.get("name")
    return dns_label_causes(f"{path}.name", str(name)) if name else [required_value(f"{path}.name", "")]


def _item_causes(path: str, volume: Object) -> list[Cause]:
    """The files that a Secret, ConfigMap or downwardAPI volume makes of single keys."""
    return [
        cause
        for source, value in volume.items()
        if isinstance(value, dict)
        for index, item in enumerate(value.get("items") or ())
        for cause in _path_causes(f"{path}.{source}.items[{index}].path", str(item.get("path", "")))
    ]


def _path_causes(field: str, path: str) -> list[Cause]:
    causes = []
    if path.startswith("/"):
        causes.append(invalid_value(field, path, "must be a relative path"))
    if ".." in path.split("/"):
        causes.append(invalid_value(field, path, "must not contain '..'"))
    return causes


def _duplicates(named: Iterable[tuple[str, Object]]) -> list[Cause]:
    seen: set[str] = set()
    causes = []
    for path, one in named:
        name = str(one.get("name"))
        if name in seen:
            causes.append(Cause(f"{path}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        seen.add(name)
    return causes
