from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import kubernetes.client
import pytest
from hypothesis import settings
from kubeflow_katib_api import models

# The same examples each time, in every worker of xdist, and no files left in the checkout.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden outputs anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # The default serves runs that start above this folder: pytest has parsed its options by then.
    return bool(request.config.getoption("--update-golden", default=False))


RoundTrip = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def through_katib() -> RoundTrip:
    """Parses an Experiment with Katib's own models and writes it again: unknown and mistyped fields get lost."""

    def round_trip(manifest: dict[str, Any]) -> dict[str, Any]:
        experiment = models.V1beta1Experiment.from_dict(manifest)
        assert experiment is not None
        return experiment.to_dict()

    return round_trip


@pytest.fixture(scope="session")
def through_pod_model() -> RoundTrip:
    def round_trip(template: dict[str, Any]) -> dict[str, Any]:
        pod = models.IoK8sApiCoreV1PodTemplateSpec.from_dict(template)
        assert pod is not None
        return pod.to_dict()

    return round_trip


@pytest.fixture(scope="session")
def through_job_model() -> RoundTrip:
    """Katib's models have no Job; Katib itself refuses a Job that does not round-trip through its type."""

    def round_trip(manifest: dict[str, Any]) -> dict[str, Any]:
        client = kubernetes.client.ApiClient()
        job = client.deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1Job")
        return dict(client.sanitize_for_serialization(job))

    return round_trip
