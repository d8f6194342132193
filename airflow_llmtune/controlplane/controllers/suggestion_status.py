"""A Suggestion's conditions with Katib's reasons and messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.controllers.conditions import (
    find_condition,
    has_condition,
    remove_condition,
    set_condition,
    set_false,
)

SEARCH_ENDED = "llmtune/search-ended"
"""Among the ``algorithmSettings`` of the status: the algorithm has nothing more to suggest."""

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


def mark_not_ready(suggestion: dict[str, Any], now: str) -> None:
    message = "Deployment is not ready"
    set_condition(suggestion, "DeploymentReady", "DeploymentNotReady", message, now, status="False")


def mark_ready(suggestion: dict[str, Any], now: str) -> None:
    set_condition(suggestion, "DeploymentReady", "DeploymentReady", "Deployment is ready", now)


def mark_running(suggestion: dict[str, Any], now: str) -> None:
    set_condition(suggestion, "Running", "SuggestionRunning", "Suggestion is running", now)


def mark_invalid(suggestion: dict[str, Any], call: str, text: str, now: str) -> None:
    """``call`` is what upstream asks its service for."""
    set_false(suggestion, "Running", now)
    set_condition(suggestion, "Failed", "SuggestionFailed", f"Validation failed: {call} Error: {text}", now)


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


def kept_settings(suggestion: dict[str, Any]) -> dict[str, str]:
    """The algorithm's state, which is overlaid onto its settings."""
    return {one["name"]: one["value"] for one in suggestion.get("status", {}).get("algorithmSettings", ())}


def keep_settings(suggestion: dict[str, Any], state: Mapping[str, str], *, ended: bool) -> None:
    kept = {**kept_settings(suggestion), **state}
    kept.pop(SEARCH_ENDED, None)
    if ended:
        kept[SEARCH_ENDED] = "true"
    if kept:
        suggestion["status"]["algorithmSettings"] = [{"name": name, "value": kept[name]} for name in kept]
    else:
        suggestion["status"].pop("algorithmSettings", None)


def search_ended(suggestion: dict[str, Any]) -> bool:
    """Whether fewer parameter sets than requested are all that will ever come."""
    return SEARCH_ENDED in kept_settings(suggestion)
