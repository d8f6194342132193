"""How the API server says no: its ``metav1.Status``, or what a proxy in front of it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from airflow_llmtune.exceptions import KubernetesApiError

__all__ = ["read_error", "status_error"]


# No server means longer, and a header that does would stop a wait for good.
MAX_RETRY_AFTER = 60.0


async def read_error(response: aiohttp.ClientResponse, host: str) -> KubernetesApiError:
    return status_error(await _decode(response), host, response.headers.get("Retry-After", ""))


def status_error(status: Mapping[str, Any], host: str, retry_after: str = "") -> KubernetesApiError:
    code, reason = int(status.get("code") or 0), str(status.get("reason") or "")
    message = status.get("message") or "no message"
    if code == 500 and "failed to create typed patch object" in message:
        code = 400  # An applied field that the kind does not have; no repeat mends it.
    return KubernetesApiError(
        f"The API server at {host} answered {code} {reason}: {message}",
        code=code,
        reason=reason,
        causes=_read_causes(status.get("details")),
        # The header may also be a date; Kubernetes writes seconds.
        retry_after=min(float(retry_after), MAX_RETRY_AFTER) if retry_after.isdecimal() else 0.0,
    )


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
