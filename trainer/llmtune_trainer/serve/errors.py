"""What keeps the server from starting, and what it answers instead of a completion."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from llmtune_trainer.errors import TrainerError

# vLLM's names for what OpenAI's clients tell apart by the HTTP status.
TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    500: "InternalServerError",
}


class LoadError(TrainerError):
    """A model or an adapter that cannot be served; the process ends with exit code 1."""


class ApiError(Exception):
    def __init__(self, status: int, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.parameter = parameter

    def body(self) -> Mapping[str, Any]:
        return error_body(self.status, self.message, self.parameter)


def error_body(status: int, message: str, parameter: str | None = None) -> dict[str, Any]:
    kind = TYPES.get(status, HTTPStatus(status).phrase)
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}
