"""What a pod's probes and hooks may say, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.admission.openapi import OPENAPI_SCHEMAS
from airflow_llmtune.controlplane.apiserver.field_validation import unknown_field_warnings
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused

HEADER_RULE = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)
PORT_RULE = "must be between 1 and 65535, inclusive"
INIT_RULE = "may not be set for init containers without restartPolicy=Always"


def pod(container: Object | None = None, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "x", "command": ["a"], **(container or {})}]
    return {"metadata": {"name": "pod", "namespace": "default"}, "spec": {"containers": containers, **spec}}


def ready(**fields: Any) -> Object:
    return {"readinessProbe": {"tcpSocket": {"port": 80}, **fields}}


def get(**fields: Any) -> Object:
    return {"readinessProbe": {"httpGet": {"port": 80, **fields}}}


def test_what_is_left_out_or_zero_gets_its_default(registry: Registry) -> None:
    probe = {"httpGet": {"port": "web"}, "periodSeconds": 0, "failureThreshold": 7}
    hooks = {"preStop": {"httpGet": {"port": 80, "path": "/bye"}}}
    made = registry.create(
        POD, pod({"readinessProbe": probe, "livenessProbe": {"grpc": {"port": 1}}, "lifecycle": hooks})
    )
    (container,) = made["spec"]["containers"]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/", "port": "web", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 7,
    }
    assert container["livenessProbe"]["grpc"] == {"port": 1, "service": ""}
    assert container["lifecycle"]["preStop"]["httpGet"] == {"path": "/bye", "port": 80, "scheme": "HTTP"}


def test_a_jobs_template_gets_them_too(registry: Registry) -> None:
    template = {"spec": {**pod(ready())["spec"], "restartPolicy": "Never"}}
    job = {"metadata": {"name": "job", "namespace": "default"}, "spec": {"template": template}}
    (container,) = registry.create(JOB, job)["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["periodSeconds"] == 10


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (pod({"livenessProbe": {}}), "livenessProbe: Required value: must specify a handler type"),
        (
            pod(ready(exec={"command": ["a"]})),
            "readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (pod({"startupProbe": {"exec": {}}}), "startupProbe.exec.command: Required value"),
        (pod({"startupProbe": {"tcpSocket": {}}}), f"startupProbe.tcpSocket.port: Invalid value: 0: {PORT_RULE}"),
        (
            pod({"startupProbe": {"grpc": {"port": 70000}}}),
            f"startupProbe.grpc.port: Invalid value: 70000: {PORT_RULE}",
        ),
        (pod(get(port="a-name-of-more-than-15")), "readinessProbe.httpGet.port: Invalid value"),
        (pod(get(port="80")), 'httpGet.port: Invalid value: "80": must contain at least one letter (a-z)'),
        (pod(get(port="-a")), 'Invalid value: "-a": must not begin or end with a hyphen'),
        (pod(get(port="a--b")), 'Invalid value: "a--b": must not contain consecutive hyphens'),
        (pod(get(port="A")), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (pod(get(port=[80])), f"Invalid value: [80]: {PORT_RULE}"),
        (pod(get(scheme="http")), 'scheme: Unsupported value: "http": supported values: "HTTP", "HTTPS"'),
        (pod(get(httpHeaders=[{"name": "a b"}])), f'httpHeaders: Invalid value: "a b": {HEADER_RULE}'),
        (pod(ready(periodSeconds=-1)), "periodSeconds: Invalid value: -1: must be greater than or equal to 0"),
        (pod(ready(initialDelaySeconds=-1)), "initialDelaySeconds: Invalid value: -1"),
        (
            pod({"livenessProbe": ready(successThreshold=2)["readinessProbe"]}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            pod({"livenessProbe": ready(terminationGracePeriodSeconds=0)["readinessProbe"]}),
            "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            pod(ready(terminationGracePeriodSeconds=1)),
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (pod({"lifecycle": {"preStop": {}}}), "lifecycle.preStop: Required value: must specify a handler type"),
        (
            pod({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
            "sleep.seconds: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (pod({"lifecycle": {"postStart": {"exec": {}}}}), "lifecycle.postStart.exec.command: Required value"),
        (
            pod(initContainers=[{"name": "init", "image": "x", **ready()}]),
            f"spec.initContainers[0].readinessProbe: Forbidden: {INIT_RULE}",
        ),
        (
            pod(initContainers=[{"name": "init", "image": "x", "lifecycle": {}}]),
            f"spec.initContainers[0].lifecycle: Forbidden: {INIT_RULE}",
        ),
        (
            pod({"ports": [{"name": "Web", "containerPort": 80}]}),
            'spec.containers[0].ports[0].name: Invalid value: "Web": must contain only',
        ),
    ],
)
def test_a_probe_that_breaks_a_rule_is_a_422(registry: Registry, obj: Object, text: str) -> None:
    error = refused(registry.create, POD, obj)
    assert (error.code, error.reason) == (422, "Invalid")
    assert text in error.message


def test_a_longer_grace_period_leaves_a_hook_more_time(registry: Registry) -> None:
    hooks = {"preStop": {"sleep": {"seconds": 31}}}
    registry.create(POD, pod({"lifecycle": hooks}, terminationGracePeriodSeconds=31))


@pytest.mark.parametrize(
    "container",
    [ready(periodSeconds="10"), get(path=1), {"livenessProbe": []}, {"lifecycle": {"preStop": {"exec": "a"}}}],
)
def test_a_field_of_the_wrong_type_is_a_400(registry: Registry, container: Object) -> None:
    error = refused(registry.create, POD, pod(container))
    assert (error.code, error.reason) == (400, "BadRequest")
    assert error.message.startswith('Pod in version "v1" cannot be handled as a Pod: json: ')


def test_fields_that_there_are_not_are_found() -> None:
    sent = pod({**ready(periodSecond=1), "lifecycle": {"preStart": {}}})
    assert sorted(unknown_field_warnings(POD, sent, OPENAPI_SCHEMAS[POD], "Warn")) == [
        'unknown field "spec.containers[0].lifecycle.preStart"',
        'unknown field "spec.containers[0].readinessProbe.periodSecond"',
    ]
