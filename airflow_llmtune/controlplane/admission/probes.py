"""What the API server fills into probes and lifecycle hooks of containers, and refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import Cause, forbidden_value, invalid_value, required_value

Object = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_NUMBERS = ("initialDelaySeconds", *_DEFAULTS)
_SCHEMES = ("HTTP", "HTTPS")
_DEFAULT_GRACE_SECONDS = 30
_LARGEST_PORT = 65535
_LONGEST_PORT_NAME = 15
_HEADER_NAME = re.compile(r"[-A-Za-z0-9]+")
_HEADER_RULE = (
    "a valid HTTP header must consist of alphanumeric characters or '-' "
    "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
)
_INIT_RULE = "may not be set for init containers without restartPolicy=Always"


def default_probes(container: Object) -> None:
    """Zero counts as left out, as it does for the API server."""
    for probe in (container[field] for field in _PROBES if container.get(field)):
        for field, value in _DEFAULTS.items():
            probe[field] = probe.get(field) or value
        _default_handler(probe)
    for hook in (container.get("lifecycle") or {}).values():
        _default_handler(hook)


def _default_handler(handler: Object) -> None:
    request = handler.get("httpGet")
    if request is not None:
        request["path"] = request.get("path") or "/"
        request["scheme"] = request.get("scheme") or "HTTP"
    if handler.get("grpc") is not None:
        handler["grpc"].setdefault("service", "")


def probe_causes(path: str, container: Object, spec: Object) -> list[Cause]:
    """``container`` is one of the pod spec's, which says how long its hooks may take."""
    grace = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    causes = []
    for name in _HOOKS:
        hook = (container.get("lifecycle") or {}).get(name)
        if hook is not None:
            causes += _handler_causes(f"{path}.lifecycle.{name}", hook, grace)
    for field in _PROBES:
        probe = container.get(field)
        if probe is not None:
            causes += _probe_causes(f"{path}.{field}", probe, grace)
            causes += _kind_causes(f"{path}.{field}", probe, is_readiness=field == "readinessProbe")
    return causes


def init_probe_causes(path: str, container: Object) -> list[Cause]:
    """An init container runs to its end: there is nothing to look at."""
    if container.get("restartPolicy") == "Always":
        return []
    fields = ("lifecycle", *_PROBES)
    return [forbidden_value(f"{path}.{field}", _INIT_RULE) for field in fields if container.get(field) is not None]


def _probe_causes(path: str, probe: Object, grace: int) -> list[Cause]:
    causes = _handler_causes(path, probe, grace)
    for field in _NUMBERS:
        if probe.get(field, 0) < 0:
            causes.append(invalid_value(f"{path}.{field}", probe[field], "must be greater than or equal to 0"))
    seconds = probe.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds <= 0:
        causes.append(invalid_value(f"{path}.terminationGracePeriodSeconds", seconds, "must be greater than 0"))
    return causes


def _kind_causes(path: str, probe: Object, *, is_readiness: bool) -> list[Cause]:
    seconds, needed = probe.get("terminationGracePeriodSeconds"), probe.get("successThreshold") or 1
    if is_readiness:
        rule = "must not be set for readinessProbes"
        return [] if seconds is None else [invalid_value(f"{path}.terminationGracePeriodSeconds", seconds, rule)]
    return [] if needed == 1 else [invalid_value(f"{path}.successThreshold", needed, "must be 1")]


def _handler_causes(path: str, handler: Object, grace: int) -> list[Cause]:
    given = [name for name in _HANDLERS if handler.get(name) is not None]
    if not given:
        return [required_value(path, "must specify a handler type")]
    first, *others = given
    causes = list(_action_causes(f"{path}.{first}", first, handler[first], grace))
    return causes + [forbidden_value(f"{path}.{name}", "may not specify more than 1 handler type") for name in others]


def _action_causes(path: str, name: str, action: Object, grace: int) -> Iterable[Cause]:
    match name:
        case "exec":
            return [] if action.get("command") else [required_value(f"{path}.command", "")]
        case "httpGet":
            return _request_causes(path, action)
        case "sleep":
            seconds = action.get("seconds", 0)
            rule = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            return [] if 0 <= seconds <= grace else [invalid_value(f"{path}.seconds", seconds, rule)]
        case _:
            return _port_causes(f"{path}.port", action.get("port", 0))


def _request_causes(path: str, request: Object) -> list[Cause]:
    causes = _port_causes(f"{path}.port", request.get("port", 0))
    scheme = request.get("scheme") or "HTTP"
    if scheme not in _SCHEMES:
        listed = ", ".join(f'"{one}"' for one in _SCHEMES)
        text = f'Unsupported value: "{scheme}": supported values: {listed}'
        causes.append(Cause(f"{path}.scheme", text, "FieldValueNotSupported"))
    for header in request.get("httpHeaders") or ():
        name = header.get("name", "")
        if not _HEADER_NAME.fullmatch(name):
            causes.append(invalid_value(f"{path}.httpHeaders", name, _HEADER_RULE))
    return causes


def _port_causes(path: str, port: int | str) -> list[Cause]:
    if isinstance(port, str):
        return [invalid_value(path, port, rule) for rule in port_name_mistakes(port)]
    if isinstance(port, int) and 0 < port <= _LARGEST_PORT:
        return []
    return [invalid_value(path, port, f"must be between 1 and {_LARGEST_PORT}, inclusive")]


def port_name_mistakes(name: str) -> list[str]:
    rules = {
        f"must be no more than {_LONGEST_PORT_NAME} characters": len(name) <= _LONGEST_PORT_NAME,
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)": re.fullmatch("[-a-z0-9]+", name),
        "must contain at least one letter (a-z)": re.search("[a-z]", name),
        "must not contain consecutive hyphens": "--" not in name,
        "must not begin or end with a hyphen": name == name.strip("-"),
    }
    return [rule for rule, holds in rules.items() if not holds]
