"""A new version beside the one that serves: tried, promoted, ended."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import canary
from airflow_llmtune.resources.inference_service import DEPLOYMENT_MODE, KIND
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import read_revision, stamped
from crd_schemas import violations

JSON = dict[str, Any]


def service(model: str, mode: str = "Standard", uri: str | None = None, **predictor: Any) -> JSON:
    inner: JSON = {"modelFormat": {"name": "huggingface"}, "args": [f"--model_dir={model}"]}
    if uri is not None:
        inner["storageUri"] = uri
    return {
        "apiVersion": KIND.api_version,
        "kind": KIND.kind,
        "metadata": {"name": "chat", "namespace": "ml", "uid": "u", "labels": {"team": "nlp"}},
        "spec": stamped({"predictor": {"model": inner, **predictor}}),
        "status": {"deploymentMode": mode},
    }


def tried(current: JSON | None, new: JSON, percent: int = 10) -> tuple[JSON, list[str]]:
    problems = Problems()
    made = canary.with_canary(current, new, percent, problems)
    return made, [str(error) for error in problems.errors]


def shifted(current: JSON, percent: int) -> tuple[JSON, list[str]]:
    problems = Problems()
    return canary.with_traffic(current, percent, problems), [str(error) for error in problems.errors]


def with_entry(uri: tuple[str | None, str | None] = (None, None), **stable: Any) -> JSON:
    """A service whose canary is tried."""
    current = service("a", uri=uri[0], **stable)
    made, _ = tried(current, service("b", uri=uri[1]), 10)
    return {**made, "status": current["status"]}


def test_in_standard_mode_the_stable_version_stays_as_it_is():
    current = service("a", minReplicas=2, maxReplicas=4)
    made, found = tried(current, service("b", minReplicas=3, maxReplicas=5))
    assert found == []
    assert violations(made) == []
    assert made["spec"]["predictor"] == current["spec"]["predictor"]
    (entry,) = made["spec"]["canary"]
    assert entry["trafficPercent"] == 10
    assert entry["predictor"]["name"] == f"r{read_revision(entry['predictor'])[:8]}"
    # A canary may not have more pods than the stable version, nor be scaled.
    assert entry["predictor"]["minReplicas"] == 2
    assert "maxReplicas" not in entry["predictor"]
    assert entry["predictor"]["model"]["name"] == "kserve-container"
    assert made["metadata"]["annotations"][DEPLOYMENT_MODE] == "Standard"


def test_in_knative_mode_the_new_predictor_gets_the_percentage():
    made, found = tried(service("a", "Knative"), service("b"))
    assert (found, made["spec"]["predictor"]["canaryTrafficPercent"]) == ([], 10)
    assert violations(made) == []


@pytest.mark.parametrize(
    ("current", "new", "told"),
    [
        (None, service("b"), "needs a version that gets the other requests"),
        (service("a"), service("a"), "would go to the version that serves already"),
        (service("a", "Knative"), service("a"), "would go to the version that serves already"),
        (
            service("a"),
            service("b", storageUris=[{"uri": "s3://b/a", "mountPath": "/mnt/models/adapter"}]),
            "KServe fetches no `storageUris` for a canary in Standard mode",
        ),
    ],
)
def test_a_canary_that_cannot_be_is_told(current, new, told):
    (found,) = tried(current, new)[1]
    assert told in found


def test_what_is_tried_in_knative_mode_may_be_tried_again():
    assert tried(service("b", "Knative", canaryTrafficPercent=10), service("b"), 20)[1] == []


def test_a_canary_without_requests_has_pods_in_knative_mode_only():
    (found,) = tried(service("a"), service("b"), 0)[1]
    assert "`canary_traffic_percent`=0 starts no pod in Standard mode" in found
    assert tried(service("a", "Knative"), service("b"), 0)[1] == []


@pytest.mark.parametrize("percent", [1, 99])
def test_a_share_is_changed_and_nothing_else(percent):
    current = with_entry()
    spec, found = shifted(current, percent)
    assert found == []
    assert spec["canary"][0]["trafficPercent"] == percent
    assert spec["canary"][0]["predictor"] == current["spec"]["canary"][0]["predictor"]


def test_a_canary_with_another_storage_uri_is_promoted_with_its_pods():
    current = with_entry(("s3://b/a", "s3://b/b"), minReplicas=2, maxReplicas=4)
    spec, _ = shifted(current, 100)
    entry = current["spec"]["canary"][0]["predictor"]
    assert "canary" not in spec
    assert spec["predictor"]["name"] == entry["name"]
    assert spec["predictor"]["model"] == service("b", uri="s3://b/b")["spec"]["predictor"]["model"]
    assert (spec["predictor"]["minReplicas"], spec["predictor"]["maxReplicas"]) == (2, 4)


def test_one_without_is_promoted_under_the_stable_versions_name_as_kserve_demands():
    current = with_entry()
    spec, _ = shifted(current, 100)
    assert "name" not in spec["predictor"]
    assert spec["predictor"]["model"] == service("b")["spec"]["predictor"]["model"]
    assert read_revision(spec["predictor"]) == read_revision(current["spec"]["canary"][0]["predictor"])


def test_a_promoted_model_leaves_the_adapters_address_behind():
    uris = [{"uri": "s3://b/base", "mountPath": "/mnt/models/base"}]
    current = service("a", storageUris=uris)
    made, _ = tried(current, service("b", uri="s3://b/merged"))
    spec, _ = shifted({**made, "status": current["status"]}, 100)
    assert "storageUris" not in spec["predictor"]


def test_to_end_a_canary_leaves_the_stable_version():
    current = with_entry()
    assert shifted(current, 0)[0] == {"predictor": current["spec"]["predictor"]}


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (70, 70), (100, None)])
def test_in_knative_mode_the_percentage_is_changed_or_taken_away(percent, expected):
    current = service("b", "Knative", canaryTrafficPercent=10)
    spec, found = shifted(current, percent)
    assert (found, spec["predictor"].get("canaryTrafficPercent")) == ([], expected)


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_without_a_canary_there_is_no_share(mode):
    (found,) = shifted(service("a", mode), 50)[1]
    assert "Fix: deploy one with DeployLLMOperator(canary_traffic_percent=…) first" in found


def test_the_name_that_a_promotion_left_is_kept_by_the_next_deployment():
    promoted = service("b", name="r12345678")
    assert canary.kept_name(promoted, service("c")["spec"])["predictor"]["name"] == "r12345678"
    assert "name" not in canary.kept_name(None, service("c")["spec"])["predictor"]
    assert canary.kept_name(promoted, service("c", name="mine")["spec"])["predictor"]["name"] == "mine"


@pytest.mark.parametrize(("percent", "waited"), [(None, None), (0, None), (1, 1), (99, 99), (100, None)])
def test_a_share_is_waited_for_while_there_is_a_canary(percent, waited):
    assert canary.traffic_of(percent) == waited
