from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import suggestion

JSON = dict[str, Any]
READY = ("DeploymentReady", "True", "")


def body(*conditions: tuple[str, str, str], requests: int = 3, count: int | None = 3) -> JSON:
    held = [{"type": type_, "status": status, "message": message} for type_, status, message in conditions]
    status = {"conditions": held} | ({} if count is None else {"suggestionCount": count})
    return {"spec": {"algorithm": {"algorithmName": "grid"}, "requests": requests}, "status": status}


@pytest.mark.parametrize("ended", [True, False])
def test_a_suggestion_that_failed_tells_why(ended: bool) -> None:
    told = suggestion.read_trouble(body(READY, ("Failed", "True", "Validation failed: no step")), ended=ended)
    assert told == "the suggestion of grid failed: Validation failed: no step"


@pytest.mark.parametrize(
    ("obj", "told"),
    [
        (body(READY), None),
        (body(READY, count=2), "gave 2 of 3 parameter sets"),
        (body(READY, count=None), "gave 0 of 3 parameter sets"),
        (body(("DeploymentReady", "False", "")), "has no service yet that is ready"),
        ({"spec": {"algorithm": {"algorithmName": "grid"}, "requests": 1}}, "has no service yet that is ready"),
    ],
)
def test_what_is_missing_is_told_while_the_experiment_runs(obj: JSON, told: str | None) -> None:
    found = suggestion.read_trouble(obj, ended=False)
    assert (found is None) if told is None else (found is not None and told in found)
    assert suggestion.read_trouble(obj, ended=True) is None
