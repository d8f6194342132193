"""A Suggestion's conditions with Katib's reasons and messages. Pure."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.controllers.conditions import (
    find_condition,
    has_condition,
    remove_condition,
    set_condition,
)

_ENDED = "Suggestion is succeeded"
_END_MESSAGES = {
    "Never": "Suggestion is succeeded, can't be restarted",
    "FromVolume": "Suggestion is succeeded, suggestion volume is not deleted, can be restarted",
}


def is_completed(suggestion: dict[str, Any]) -> bool:
    return has_condition(suggestion, "Succeeded") or has_condition(suggestion, "Failed")


def mark_created(suggestion: dict[str, Any], now: str) -> None:
    suggestion.setdefault("status", {}).setdefault("startTime", now)
    set_condition(suggestion, "Created", "SuggestionCreated", "Suggestion is created", now)


def mark_ready(suggestion: dict[str, Any], now: str) -> None:
    set_condition(suggestion, "DeploymentReady", "DeploymentReady", "Deployment is ready", now)


def mark_running(suggestion: dict[str, Any], now: str) -> None:
    set_condition(suggestion, "Running", "SuggestionRunning", "Suggestion is running", now)


def mark_invalid(suggestion: dict[str, Any], text: str, now: str) -> None:
    message = f"Validation failed: ValidateAlgorithmSettings Error: {text}"
    set_condition(suggestion, "Failed", "SuggestionFailed", message, now)


def mark_succeeded(suggestion: dict[str, Any], resume_policy: str | None, now: str) -> None:
    for type_, message in (
        ("Running", "Suggestion is not running"),
        ("DeploymentReady", "Deployment is not ready"),
    ):
        if find_condition(suggestion, type_) is not None:
            set_condition(suggestion, type_, _ENDED, message, now, status="False")
    message = _END_MESSAGES[resume_policy or "Never"]
    set_condition(suggestion, "Succeeded", "Experiment is succeeded", message, now)


def mark_restarting(suggestion: dict[str, Any], now: str) -> None:
    remove_condition(suggestion, "Succeeded")
    message = "Suggestion is not running"
    set_condition(suggestion, "Running", "Experiment is restarting", message, now, status="False")
