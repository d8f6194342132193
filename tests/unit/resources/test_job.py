from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import job

JSON = dict[str, Any]


def status(*conditions: tuple[str, str], **rest: Any) -> JSON:
    listed = [{"type": type_, "status": value, "reason": f"R{type_}", "message": "m"} for type_, value in conditions]
    return {"status": {"conditions": listed, **rest}}


@pytest.mark.parametrize(
    ("obj", "phase", "reason"),
    [
        ({}, "Pending", ""),
        (status(), "Pending", ""),
        (status(active=1), "Running", ""),
        (status(("Suspended", "True")), "Pending", "RSuspended"),
        (status(("SuccessCriteriaMet", "True"), active=1), "Running", ""),
        (status(("FailureTarget", "True"), active=1), "Running", ""),
        (status(("SuccessCriteriaMet", "True"), ("Complete", "True"), succeeded=1), "Succeeded", "RComplete"),
        (status(("FailureTarget", "True"), ("Failed", "True"), failed=1), "Failed", "RFailed"),
        (status(("Failed", "False"), active=1), "Running", ""),
    ],
)
def test_the_outcome_of_a_job(obj: JSON, phase: str, reason: str) -> None:
    outcome = job.read_outcome(obj)
    assert (outcome.phase, outcome.reason) == (phase, reason)


def test_a_trials_job_has_no_metadata_and_a_real_one_has() -> None:
    limits: JSON = {"active_deadline_seconds": 60, "ttl_seconds_after_finished": None}
    assert job.to_manifest({"spec": {}}, **limits) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"backoffLimit": 0, "activeDeadlineSeconds": 60, "template": {"spec": {}}},
    }
    assert job.to_manifest({}, **limits, metadata={"name": "x"})["metadata"] == {"name": "x"}


def test_a_jobs_pods_carry_its_name() -> None:
    assert job.pod_selector("x") == "batch.kubernetes.io/job-name=x"
