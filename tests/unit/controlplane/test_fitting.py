"""What a pod asks for, and whether a node has it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.fitting import (
    Amounts,
    Node,
    matches_node,
    misfit,
    requests,
    unschedulable_message,
)
from objects import Object

GPU = "nvidia.com/gpu"


def container(limits: Object | None = None, **asked: Any) -> Object:
    return {"resources": {"requests": asked, "limits": limits or {}}}


def amounts(**values: float) -> Amounts:
    return {name: Fraction(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container(cpu="1"), container(cpu="500m")]}, Fraction(3, 2)),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), container(cpu="2")]}, 3),
        ({"containers": [container(cpu="2"), container(cpu="2")], "initContainers": [container(cpu="3")]}, 4),
        ({"containers": [container(limits={"cpu": "2"})]}, 2),
        ({"containers": [container(limits={"cpu": "2"}, cpu="1")]}, 1),
        (
            {
                "containers": [container(cpu="1")],
                "initContainers": [{**container(cpu="2"), "restartPolicy": "Always"}, container(cpu="3")],
            },
            5,
        ),
    ],
)
def test_a_pod_asks_for_what_it_needs_at_most_at_one_time(spec: Object, cpu: Fraction) -> None:
    assert requests(spec) == {"cpu": cpu, "pods": 1}


NODE = Node("node", {"zone": "a", "size": "7"}, amounts(cpu=4, memory=100, pods=3), amounts(cpu=1, memory=60, pods=1))


VICTIMS = "No preemption victims found for incoming pod"
NO_HELP = "Preemption is not helpful for scheduling"


@pytest.mark.parametrize(
    ("needed", "reasons", "preemption"),
    [
        ({"cpu": 3.5}, "1 Insufficient cpu", VICTIMS),
        ({"memory": 50, "cpu": 5}, "1 Insufficient cpu, 1 Insufficient memory", NO_HELP),
        ({GPU: 1}, "1 Insufficient nvidia.com/gpu", NO_HELP),
        ({"pods": 3}, "1 Too many pods", VICTIMS),
    ],
)
def test_what_does_not_fit_is_told_in_the_schedulers_words(
    needed: dict[str, float], reasons: str, preemption: str
) -> None:
    found = misfit({}, amounts(**needed), NODE)
    assert found is not None
    text = f"0/1 nodes are available: {reasons}. preemption: 0/1 nodes are available: 1 {preemption}."
    assert unschedulable_message([found]) == text


def test_what_is_left_can_be_used_up_and_undeclared_disk_is_not_counted() -> None:
    assert misfit({}, amounts(cpu=3, memory=40, pods=1), NODE) is None
    assert misfit({}, {"ephemeral-storage": Fraction(10**12)}, NODE) is None


def affinity(*rules: Object, field: str = "matchExpressions") -> Object:
    terms = {"nodeSelectorTerms": [{field: list(rules)}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


@pytest.mark.parametrize(
    ("spec", "matches"),
    [
        ({}, True),
        ({"nodeSelector": {"zone": "a"}}, True),
        ({"nodeSelector": {"zone": "b"}}, False),
        ({"nodeSelector": {"nvidia.com/gpu.product": "x"}}, False),
        (affinity({"key": "zone", "operator": "In", "values": ["a", "b"]}), True),
        (affinity({"key": "zone", "operator": "NotIn", "values": ["a"]}), False),
        (affinity({"key": "zone", "operator": "Exists"}, {"key": "x", "operator": "DoesNotExist"}), True),
        (affinity({"key": "size", "operator": "Gt", "values": ["6"]}), True),
        (affinity({"key": "size", "operator": "Lt", "values": ["6"]}), False),
        (affinity({"key": "zone", "operator": "Lt", "values": ["6"]}), False),
        (affinity({"key": "size", "operator": "Gt"}), False),
        (affinity({"key": "zone"}), False),
        (affinity(), False),
        (affinity({"key": "metadata.name", "operator": "In", "values": ["node"]}, field="matchFields"), True),
    ],
)
def test_a_pod_can_choose_its_node(spec: Object, matches: bool) -> None:
    assert matches_node(spec, NODE) is matches
    assert (misfit(spec, {}, NODE) is None) is matches


def test_a_node_that_was_not_chosen_is_told() -> None:
    found = misfit({"nodeSelector": {"zone": "b"}}, {}, NODE)
    assert found is not None
    assert unschedulable_message([found]) == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
