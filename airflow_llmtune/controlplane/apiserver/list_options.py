"""``resourceVersion``, ``resourceVersionMatch`` and ``sendInitialEvents``: which combinations make sense."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_llmtune.controlplane.apiserver.errors import Cause, bad_request, forbidden_value, invalid
from airflow_llmtune.controlplane.apiserver.kinds import Kind

_OPTIONS = Kind("meta.k8s.io", "v1", "ListOptions", "listoptions", "listoptions")
_MATCHES = ("Exact", "NotOlderThan")


def check_list_options(query: Mapping[str, str]) -> None:
    """Of a list; raises as a real server does."""
    match, version, token = (query.get(name, "") for name in ("resourceVersionMatch", "resourceVersion", "continue"))
    if token and version not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    causes = _match_causes(match)
    if match and token:
        causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
    elif match and not version:
        causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    elif match == "Exact" and version == "0":
        causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in query:
        detail = "sendInitialEvents is forbidden for list"
        causes.append(forbidden_value("sendInitialEvents", detail))
    _raise(causes)


def check_watch_options(query: Mapping[str, str]) -> None:
    """Of a watch."""
    match, initial = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    causes = _match_causes(match)
    if match and not initial:
        causes.append(_forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
    elif initial and match != "NotOlderThan":
        detail = 'sendInitialEvents requires setting resourceVersionMatch to "NotOlderThan"'
        causes.append(_forbidden(detail))
    _raise(causes)


def _match_causes(match: str) -> list[Cause]:
    if not match or match in _MATCHES:
        return []
    listed = ", ".join(f'"{one}"' for one in (*_MATCHES, ""))
    message = f'Unsupported value: "{match}": supported values: {listed}'
    return [Cause("resourceVersionMatch", message, "FieldValueNotSupported")]


def _forbidden(detail: str) -> Cause:
    return forbidden_value("resourceVersionMatch", detail)


def _raise(causes: list[Cause]) -> None:
    if causes:
        raise invalid(_OPTIONS, "", causes)
