"""Errors as a Kubernetes API server words them: each is a ``metav1.Status`` with its HTTP code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind


class ApiError(Exception):
    """A refused request; ``status`` is the body that the client receives."""

    def __init__(self, status: dict[str, Any], *, retry_after: int | None = None) -> None:
        super().__init__(status["message"])
        self.status = status
        self.retry_after = retry_after

    @property
    def code(self) -> int:
        return int(self.status["code"])

    @property
    def reason(self) -> str:
        """The machine-readable word; empty for answers of webhooks, which carry none."""
        return str(self.status.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.status["message"])


@dataclass(frozen=True)
class Cause:
    """One field error of an ``Invalid`` answer."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause(field, f"Invalid value: {shown}: {detail}", "FieldValueInvalid")


def required_value(field: str, detail: str) -> Cause:
    return Cause(field, f"Required value: {detail}", "FieldValueRequired")


def forbidden_value(field: str, detail: str) -> Cause:
    return Cause(field, f"Forbidden: {detail}", "FieldValueForbidden")


def failure(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        status["reason"] = reason
    if details:
        status["details"] = details
    status["code"] = code
    return status


def _details(kind: Kind, name: str, *, group_kind: bool = False) -> dict[str, Any]:
    details = {"name": name, "group": kind.group, "kind": kind.name if group_kind else kind.plural}
    return {key: value for key, value in details.items() if value}


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(failure(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name)))


def unknown_resource() -> ApiError:
    return ApiError(failure(404, "NotFound", "the server could not find the requested resource", {}))


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.resource} "{name}" already exists'
    return ApiError(failure(409, "AlreadyExists", message, _details(kind, name)))


MODIFIED_MEANWHILE = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(kind: Kind, name: str, why: str = MODIFIED_MEANWHILE) -> ApiError:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(failure(409, "Conflict", message, _details(kind, name)))


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> ApiError:
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _details(kind, name, group_kind=True)
    details["causes"] = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return ApiError(failure(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details))


def expired(message: str) -> ApiError:
    return ApiError(failure(410, "Expired", message))


def bad_request(message: str) -> ApiError:
    return ApiError(failure(400, "BadRequest", message))


def forbidden(message: str, kind: Kind | None = None, name: str = "") -> ApiError:
    """Refused although the caller is known; with a kind the message gets the usual prefix."""
    if kind is None:
        return ApiError(failure(403, "Forbidden", message))
    text = f'{kind.resource} "{name}" is forbidden: {message}'
    return ApiError(failure(403, "Forbidden", text, _details(kind, name)))


def unauthorized() -> ApiError:
    return ApiError(failure(401, "Unauthorized", "Unauthorized"))


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(failure(405, "MethodNotAllowed", message))


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    listed = ", ".join(accepted)
    message = f"only the following media types are accepted: {listed}"
    return ApiError(failure(406, "NotAcceptable", message))


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return ApiError(failure(415, "UnsupportedMediaType", message))


def too_large_resource_version(wanted: int, current: int) -> ApiError:
    message = f"Too large resource version: {wanted}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    details = {"causes": causes, "retryAfterSeconds": 1}
    return ApiError(failure(504, "Timeout", message, details), retry_after=1)


def internal_error(message: str) -> ApiError:
    return ApiError(
        failure(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})
    )


def denied_by_webhook(webhook_name: str, text: str) -> ApiError:
    """An admission webhook's refusal: HTTP 400 without a reason, as Katib's webhooks answer."""
    return ApiError(failure(400, "", f'admission webhook "{webhook_name}" denied the request: {text}'))


def insufficient_storage(message: str) -> ApiError:
    """The disk is full; a cluster whose etcd has no room answers in the same spirit, as an internal error."""
    return ApiError(failure(507, "InsufficientStorage", message))


def seconds_to_look_again(error: ApiError) -> float:
    """For who follows changes and acts on them: none after a 410, some when nothing could be written down.

    Raises any other error.
    """
    if error.code == 410:
        return 0.0
    if error.code >= 500:
        return 1.0
    raise error
