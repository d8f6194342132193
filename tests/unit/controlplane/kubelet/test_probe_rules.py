"""What the results of probes add up to."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.kubelet.probe_rules import (
    Probe,
    Tally,
    comes_up_at_once,
    has_probes,
    is_ready_at_once,
    probe_of,
)
from objects import Object

PROBE: Object = {"periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}


@pytest.mark.parametrize(
    ("success", "failure", "results", "verdicts"),
    [
        (1, 3, "+", "+"),
        (1, 3, "--", ".."),
        (1, 3, "---", "..-"),
        (1, 3, "----", "..--"),
        (1, 3, "--+--", "..+.."),
        (1, 1, "-+-", "-+-"),
        (2, 3, "+", "."),
        (2, 3, "++", ".+"),
        (2, 3, "+-++", "...+"),
        (3, 1, "++-+++", "..-..+"),
    ],
)
def test_a_verdict_takes_as_many_results_in_a_row_as_the_threshold_says(
    success: int, failure: int, results: str, verdicts: str
) -> None:
    tally = Tally(Probe("readiness", {**PROBE, "successThreshold": success, "failureThreshold": failure}))
    found = [tally.add(result == "+") for result in results]
    assert "".join({True: "+", False: "-", None: "."}[one] for one in found) == verdicts


@pytest.mark.parametrize(
    ("container", "probed", "started", "ready"),
    [
        ({}, False, True, True),
        ({"readinessProbe": PROBE}, True, True, False),
        ({"livenessProbe": PROBE}, True, True, True),
        ({"startupProbe": PROBE}, True, False, True),
        ({"lifecycle": {"postStart": {"exec": {"command": ["a"]}}}}, False, False, True),
        ({"lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}, False, True, True),
    ],
)
def test_what_a_container_without_a_probe_would_tell_is_taken_for_granted(
    container: Object, probed: bool, started: bool, ready: bool
) -> None:
    found = (has_probes(container), comes_up_at_once(container), is_ready_at_once(container))
    assert found == (probed, started, ready)


@pytest.mark.parametrize(("fields", "grace"), [({}, None), ({"terminationGracePeriodSeconds": 5}, 5.0)])
def test_a_probe_can_have_a_grace_period_of_its_own(fields: Any, grace: float | None) -> None:
    probe = probe_of({"livenessProbe": {**PROBE, **fields}}, "liveness")
    assert probe is not None
    assert (probe.initial_delay_seconds, probe.period_seconds, probe.timeout_seconds) == (0, 10, 1)
    assert probe.grace_seconds == grace
    assert probe_of({}, "startup") is None
