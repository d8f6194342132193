"""How the API server says no: its ``metav1.Status``, or what a proxy in front of it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError

__all__ = ["read_error", "status_error"]

# How RBAC refuses; other refusals with the same code are those of a quota, a webhook, or a namespace that ends.
_LACKING_RIGHT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "(?P<group>[^"]*)")?'
    r'(?: in the namespace "(?P<namespace>[^"]+)"| at the (?P<cluster>cluster scope))?'
)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:(?P<namespace>[^:]+):(?P<name>.+)")

# No server means longer, and a header that does would stop a wait for good.
MAX_RETRY_AFTER = 60.0


async def read_error(response: aiohttp.ClientResponse, host: str) -> KubernetesApiError:
    return status_error(await _decode(response), host, response.headers.get("Retry-After", ""))


def status_error(status: Mapping[str, Any], host: str, retry_after: str = "") -> KubernetesApiError:
    code, reason = int(status.get("code") or 0), str(status.get("reason") or "")
    message = str(status.get("message") or "no message")
    if code == 500 and "failed to create typed patch object" in message:
        code = 400  # An applied field that the kind does not have; no repeat mends it.
    text = f"The API server at {host} answered {code} {reason}: {message}"
    lacking = _LACKING_RIGHT.search(message) if code == 403 else None
    error = KubernetesApiError if lacking is None else PermissionDeniedError
    return error(
        text if lacking is None else f"{_tell_right(lacking)}. {text}",
        code=code,
        reason=reason,
        causes=_read_causes(status.get("details")),
        # The header may also be a date; Kubernetes writes seconds.
        retry_after=min(float(retry_after), MAX_RETRY_AFTER) if retry_after.isdecimal() else 0.0,
    )


def _tell_right(lacking: re.Match[str]) -> str:
    """Who may not do what, and the rule that is missing, as a Role has it."""
    user, verb, resource, group = lacking.group("user", "verb", "resource", "group")
    namespace, cluster = lacking.group("namespace", "cluster")
    account = _SERVICE_ACCOUNT.fullmatch(user)
    who = f"The user {user!r}"
    if account is not None:
        who = f"The service account {account['name']!r} of namespace {account['namespace']!r}"
    home = f" namespace {namespace!r}" if namespace else " that namespace"
    where, role = ("", "a ClusterRole") if cluster else (f" in{home}", f"a Role of{home}")
    rule = f'{{apiGroups: ["{group or ""}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
    what = f"{resource}.{group}" if group else resource
    return f"{who} may not {verb} {what}{where}. Fix: add to {role} that is bound to it the rule {rule}"


async def _decode(response: aiohttp.ClientResponse) -> dict[str, Any]:
    text = await response.text(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = None
    # A proxy in front of the API server answers in HTML or plain text.
    return status if isinstance(status, dict) else {"code": response.status, "message": text[:500]}


def _read_causes(details: Any) -> tuple[str, ...]:
    causes = details.get("causes") or [] if isinstance(details, Mapping) else []
    return tuple(f"{cause.get('field')}: {cause.get('message')}" for cause in causes)
