from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import JOB
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused


def job(*, restart_policy: str | None = "Never", **spec: Any) -> Object:
    pod = {
        "containers": [{"name": "main", "image": "x"}],
        **({"restartPolicy": restart_policy} if restart_policy else {}),
    }
    return {"metadata": {"name": "job", "namespace": "default"}, "spec": {"template": {"spec": pod}, **spec}}


FIRST_RULE = "spec.podFailurePolicy.rules[0]"
RULES = "spec.successPolicy.rules"
ONLY_NEVER = "is supported when podFailurePolicy is specified"
ONE_OF_BOTH = "specifying one of OnExitCodes and OnPodConditions is required"
RULE = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            job(restart_policy=None),
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            job(restart_policy="Always"),
            'spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never"',
        ),
        (job(completions=-1), "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
        (
            job(completionMode="Random"),
            'spec.completionMode: Unsupported value: "Random": supported values: "Indexed", "NonIndexed"',
        ),
        (
            job(completionMode="Indexed", parallelism=1),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            job(backoffLimitPerIndex=1),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            job(completionMode="Indexed", completions=2, maxFailedIndexes=1),
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
        (
            job(completionMode="Indexed", completions=2, backoffLimitPerIndex=1, maxFailedIndexes=3),
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ),
        (
            job(restart_policy="OnFailure", podFailurePolicy={"rules": [RULE]}),
            f'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" {ONLY_NEVER}',
        ),
        (
            job(podFailurePolicy={"rules": [{**RULE, "action": "FailIndex"}]}),
            f'{FIRST_RULE}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
        ),
        (
            job(podFailurePolicy={"rules": [{"action": "Ignore"}]}),
            f'{FIRST_RULE}: Invalid value: {{"action": "Ignore"}}: {ONE_OF_BOTH}',
        ),
        (
            job(podFailurePolicy={"rules": [{**RULE, "onExitCodes": {"operator": "In", "values": [0]}}]}),
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            job(podFailurePolicy={"rules": [RULE]}, podReplacementPolicy="TerminatingOrFailed"),
            'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        (job(maxFailedIndexes=1), "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"),
        (
            job(completionMode="Indexed", completions=2, successPolicy={}),
            f"{RULES}: Required value: at least one rules must be specified when the successPolicy is specified",
        ),
        (
            job(completionMode="Indexed", completions=2, successPolicy={"rules": [{}]}),
            f"{RULES}[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ),
        (
            job(completionMode="Indexed", completions=2, successPolicy={"rules": [{"succeededIndexes": "0,"}]}),
            (
                f'{RULES}[0].succeededIndexes: Invalid value: "0,": must be a list of indexes and ranges of them, '
                "such as 1,3-5"
            ),
        ),
        (
            job(completionMode="Indexed", completions=2, successPolicy={"rules": [{"succeededCount": 3}]}),
            (
                f"{RULES}[0].succeededCount: Invalid value: 3: must be between 0 and 2, the number of specified "
                "completions"
            ),
        ),
        (
            job(managedBy="queue"),
            'spec.managedBy: Invalid value: "queue": must be a domain-prefixed path (such as "acme.io/foo")',
        ),
    ],
)
def test_a_wrong_job_is_refused_with_kubernetes_words(registry: Registry, body: Object, message: str) -> None:
    assert refused(registry.create, JOB, body).message == f'Job.batch "job" is invalid: {message}'


@pytest.mark.parametrize(
    ("body", "filled_in"),
    [
        (job(), {"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed"}),
        (job(completionMode="Indexed"), {"completions": 1, "parallelism": 1}),
        (job(parallelism=2), {"parallelism": 2, "podReplacementPolicy": "TerminatingOrFailed"}),
        (job(podFailurePolicy={"rules": [RULE]}), {"podReplacementPolicy": "Failed"}),
        (job(completionMode="Indexed", completions=2, backoffLimitPerIndex=1), {"backoffLimit": 2147483647}),
    ],
)
def test_defaults_are_filled_in(registry: Registry, body: Object, filled_in: Object) -> None:
    assert filled_in.items() <= registry.create(JOB, body)["spec"].items()


@pytest.mark.parametrize(
    ("change", "field"),
    [({"completions": 5}, "completions"), ({"completionMode": "Indexed"}, "completionMode")],
)
def test_what_makes_the_job_cannot_change(registry: Registry, change: Object, field: str) -> None:
    made = registry.create(JOB, job())
    error = refused(registry.update, JOB, {**made, "spec": {**made["spec"], **change}})
    assert f"spec.{field}: Invalid value:" in error.message
    assert "field is immutable" in error.message


def test_a_held_job_may_get_another_place_to_run_but_no_other_program(registry: Registry) -> None:
    made = registry.create(JOB, job(suspend=True))
    made["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}
    made = registry.update(JOB, made)
    made["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    assert "spec.template" in refused(registry.update, JOB, made).message


LONG = "a" * 64
NO_LABEL = f'spec.template.labels: Invalid value: "{LONG}": must be no more than 63 characters'


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        (LONG, {}, f"[{NO_LABEL}, {NO_LABEL}]"),
        (
            LONG[:62],
            {"completionMode": "Indexed", "completions": 11},
            (
                f'metadata.name: Invalid value: "{LONG[:62]}": will not be able to create pod with invalid DNS label: '
                f"{LONG[:62]}-10"
            ),
        ),
    ],
)
def test_a_name_that_no_pod_can_have_is_refused(registry: Registry, name: str, spec: Object, message: str) -> None:
    body = job(**spec)
    body["metadata"]["name"] = name
    assert refused(registry.create, JOB, body).message == f'Job.batch "{name}" is invalid: {message}'


def test_a_change_is_checked_as_a_new_job_is(registry: Registry) -> None:
    made = registry.create(JOB, job())
    error = refused(registry.update, JOB, {**made, "spec": {**made["spec"], "parallelism": -1}})
    text = "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"
    assert error.message == f'Job.batch "job" is invalid: {text}'
    assert refused(registry.update, JOB, {**made, "spec": {**made["spec"], "parallelism": "two"}}).code == 400
