"""What the API server fills into Deployments and ReplicaSets, and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, REPLICA_SET, Kind
from airflow_llmtune.controlplane.apiserver.patch import MERGE, STRATEGIC
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object, deployment
from registries import refused

CONTAINERS = [{"name": "main", "image": "x"}]


def made(registry: Registry, kind: Kind = DEPLOYMENT, **spec: Any) -> Object:
    wanted = {"metadata": {"name": "web"}, "spec": deployment("web", "serve")["spec"] | spec}
    return registry.create(kind, wanted, "default")


def template(labels: Object | None = None, **spec: Any) -> Object:
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": CONTAINERS, **spec}}


def rolling(**update: Any) -> Object:
    return {"strategy": {"type": "RollingUpdate", "rollingUpdate": update}}


def test_a_deployment_gets_the_defaults_of_a_cluster(registry: Registry) -> None:
    spec = made(registry)["spec"]
    assert {name: spec[name] for name in ("replicas", "revisionHistoryLimit", "progressDeadlineSeconds")} == {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Always", 30)
    assert pod["containers"][0]["imagePullPolicy"] == "Always"


def test_a_replica_set_gets_the_defaults_of_a_cluster(registry: Registry) -> None:
    spec = made(registry, REPLICA_SET)["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["restartPolicy"]) == (1, "Always")


def test_a_deployment_that_is_recreated_has_no_rolling_update(registry: Registry) -> None:
    assert made(registry, strategy={"type": "Recreate"})["spec"]["strategy"] == {"type": "Recreate"}


def test_an_update_gets_them_too_and_makes_no_new_generation(registry: Registry) -> None:
    before = made(registry)
    sent = {**before, "spec": deployment("web", "serve")["spec"]}
    assert registry.update(DEPLOYMENT, sent)["metadata"]["generation"] == 1
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    after = registry.patch(DEPLOYMENT, "default", "web", STRATEGIC, patch)
    assert after["spec"]["strategy"] == {"type": "Recreate"}
    assert after["metadata"]["generation"] == 2


SHARED: list[tuple[Object, str]] = [
    ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
    ({"selector": None}, "spec.selector: Required value: "),
    ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (
        {"selector": {"matchLabels": {"app": "other"}}},
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
    ),
    (
        {"selector": {"matchExpressions": [{"key": "app", "operator": "Is", "values": ["web"]}]}},
        'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
    ),
    ({"selector": {"matchLabels": {"a b": "x"}}}, "spec.selector.matchLabels: Invalid value"),
    (
        {"template": template(restartPolicy="Never")},
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ),
    (
        {"template": template(activeDeadlineSeconds=5)},
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    ),
    ({"template": template(containers=[])}, "spec.template.spec.containers: Required value"),
    ({"template": template(labels={"app": "web", "x": "-"})}, "spec.template.labels: Invalid value"),
]


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET], ids=str)
@pytest.mark.parametrize(("spec", "message"), SHARED)
def test_what_no_workload_may_be_is_invalid(registry: Registry, kind: Kind, spec: Object, message: str) -> None:
    error = refused(made, registry, kind, **spec)
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.message.startswith(f'{kind} "web" is invalid: ')
    assert message in error.message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            {"strategy": {"type": "BlueGreen"}},
            'spec.strategy.type: Unsupported value: "BlueGreen": supported values: "Recreate", "RollingUpdate"',
        ),
        (
            rolling(maxSurge=0, maxUnavailable=0),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            rolling(maxSurge="0%", maxUnavailable="0%"),
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
        ),
        (
            rolling(maxUnavailable="101%"),
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            rolling(maxSurge=-1),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            rolling(maxSurge="some"),
            'spec.strategy.rollingUpdate.maxSurge: Invalid value: "some": a valid percent string must be a numeric',
        ),
        ({"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit: Invalid value: -1"),
        (
            {"progressDeadlineSeconds": 5, "minReadySeconds": 5},
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ),
    ],
)
def test_what_no_deployment_may_be_is_invalid(registry: Registry, spec: Object, message: str) -> None:
    assert message in refused(made, registry, **spec).message


def test_all_mistakes_are_told_at_once(registry: Registry) -> None:
    error = refused(made, registry, replicas=-1, selector=None, template=template(restartPolicy="Never"))
    assert len(error.status["details"]["causes"]) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"replicas": "two"},
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (rolling(maxSurge=True), "json: cannot unmarshal bool into Go value of type int32"),
        (rolling(maxSurge=[1]), "json: cannot unmarshal array into Go value of type int32"),
    ],
)
def test_a_wrong_type_is_a_bad_request(registry: Registry, spec: Object, message: str) -> None:
    error = refused(made, registry, **spec)
    assert error.code == 400
    assert message in error.message


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET], ids=str)
def test_an_update_is_checked_like_a_new_one(registry: Registry, kind: Kind) -> None:
    made(registry, kind)
    patch = {"spec": {"replicas": -1, "selector": {"matchLabels": {"app": "other"}}}}
    assert "field is immutable" in refused(registry.patch, kind, "default", "web", MERGE, patch).message
    with pytest.raises(ApiError, match=r"spec\.replicas: Invalid value: -1"):
        registry.patch(kind, "default", "web", MERGE, {"spec": {"replicas": -1}})


def test_one_that_is_going_may_be_anything(registry: Registry) -> None:
    before = made(registry)
    registry.update(DEPLOYMENT, {**before, "metadata": {**before["metadata"], "finalizers": ["x/y"]}})
    registry.delete(DEPLOYMENT, "default", "web")
    registry.patch(DEPLOYMENT, "default", "web", MERGE, {"spec": {"replicas": -1}})
