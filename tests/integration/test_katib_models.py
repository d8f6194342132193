"""What the control plane stores is what Katib's own models read: nothing is unknown to them, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml
from kubeflow_katib_api.models import V1beta1Experiment, V1beta1Suggestion, V1beta1Trial
from kubernetes import client, config

from airflow_llmtune.controlplane import ControlPlane
from objects import job, tuning_experiment
from waiting import wait_for

GROUP = ("kubeflow.org", "v1beta1", "default")
MODELS = {"experiments": V1beta1Experiment, "suggestions": V1beta1Suggestion, "trials": V1beta1Trial}


@pytest.fixture(scope="module")
def api() -> Iterator[client.CustomObjectsApi]:
    with ControlPlane() as plane:
        api_client = config.new_client_from_config_dict(yaml.safe_load(plane.kubeconfig))
        yield client.CustomObjectsApi(api_client)
        api_client.rest_client.pool_manager.clear()


@pytest.fixture(scope="module")
def completed(api: client.CustomObjectsApi) -> str:
    early = {"algorithmName": "medianstop", "algorithmSettings": [{"name": "start_step", "value": "2"}]}
    manifest = tuning_experiment(
        "modelled",
        job("echo", "loss=${trialParameters.rate}"),
        retain=True,
        maxFailedTrialCount=1,
        earlyStopping=early,
        resumePolicy="FromVolume",
    )
    api.create_namespaced_custom_object(*GROUP, "experiments", manifest)

    def succeeded() -> bool:
        status = api.get_namespaced_custom_object(*GROUP, "experiments", "modelled").get("status", {})
        return any(each["type"] == "Succeeded" for each in status.get("conditions", ()))

    wait_for(succeeded, 60)
    return "modelled"


@pytest.mark.parametrize("plural", MODELS)
def test_objects_of_a_completed_experiment_go_through_katibs_models_unchanged(
    api: client.CustomObjectsApi, completed: str, plural: str
) -> None:
    model: Any = MODELS[plural]
    found = api.list_namespaced_custom_object(*GROUP, plural)["items"]
    assert found
    for each in found:
        assert _plain(model.from_dict(each).to_dict()) == _plain(each)


def _plain(value: Any) -> Any:
    """Times as texts, and without what is null, such as the completionTime of what has not completed."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
