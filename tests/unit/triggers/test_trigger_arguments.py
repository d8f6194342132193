"""What of a trigger is stored, and what another version of this package makes of it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_llmtune.triggers.base import WaitTrigger
from airflow_llmtune.triggers.katib import KatibExperimentTrigger
from airflow_llmtune.triggers.kserve import InferenceServiceTrigger, LLMInferenceServiceTrigger
from airflow_llmtune.triggers.trainer import JobTrigger, PyTorchJobTrigger, TrainJobTrigger

LEAST = {"name": "job", "namespace": "tuning", "uid": "1b4e28ba"}
DEPLOYED = {"revisions": ["0a", "0b"], "started": 1_760_000_000.5, "start_timeout": 600.0}
KINDS: list[tuple[type[WaitTrigger], dict[str, Any]]] = [
    (JobTrigger, LEAST),
    (PyTorchJobTrigger, LEAST),
    (TrainJobTrigger, LEAST),
    (KatibExperimentTrigger, LEAST),
    (InferenceServiceTrigger, LEAST | DEPLOYED),
    (LLMInferenceServiceTrigger, LEAST | DEPLOYED),
]
WAITING = {
    "kubernetes_conn_id": None,
    "config_file": "/etc/kubeconfig",
    "cluster_context": "gpu",
    "in_cluster": False,
    "poll_interval": 1.5,
    "api_retry_timeout": 7.0,
    "deadline": 1_760_000_600.25,
    "stall_timeout": 60.0,
    "startup_timeout": None,
    "on_stall": "warn",
    "on_kill_action": "keep",
}
kinds = pytest.mark.parametrize(("kind", "least"), KINDS, ids=lambda value: getattr(value, "__name__", ""))


@kinds
def test_only_what_differs_from_its_default_is_stored(kind, least):
    path, stored = kind(**least).serialize()
    assert path == f"{kind.__module__}.{kind.__qualname__}"
    assert stored == least


@kinds
def test_every_argument_comes_back_from_what_is_stored(kind, least):
    given = least | WAITING
    if "revisions" in least:
        given |= {"traffic": 20, "had_failed": True}
    stored = json.loads(json.dumps(kind(**given).serialize()[1]))
    assert stored == given
    assert kind(**stored).serialize()[1] == given


@kinds
def test_a_default_given_as_such_is_not_stored_either(kind, least):
    assert kind(**least, poll_interval=30.0, api_retry_timeout=300.0, deadline=None).serialize()[1] == least


@kinds
def test_what_a_newer_version_has_stored_is_left_out_with_a_warning(kind, least, monkeypatch, caplog):
    # Airflow's own loggers print.
    monkeypatch.setattr(WaitTrigger, "log", logging.getLogger("airflow_llmtune.triggers"))
    trigger = kind(**least, poll_interval=2.0, colour="blue", answer=42)
    (message,) = caplog.messages
    assert "answer" in message
    assert "colour" in message
    assert trigger.serialize()[1] == least | {"poll_interval": 2.0}


@kinds
def test_nothing_of_a_connection_but_its_name_is_stored(kind, least):
    secret = {"kubernetes_conn_id": "cluster", "config_file": "/run/secrets/kubeconfig"}
    stored = kind(**least, **secret).serialize()[1]
    assert stored == least | secret
