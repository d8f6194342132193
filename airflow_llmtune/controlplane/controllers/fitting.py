"""Whether a pod fits a node, decided as the default scheduler does and told in its words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from airflow_llmtune.controlplane.quantities import parse

Object = Mapping[str, Any]
Amounts = dict[str, Fraction]

_PODS = "pods"
_EPHEMERAL = "ephemeral-storage"
_CORDONED = "node(s) were unschedulable"
_NO_SELECTOR_MATCH = "node(s) didn't match Pod's node affinity/selector"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_NO_HELP = "Preemption is not helpful for scheduling"


@dataclass(frozen=True)
class Node:
    """A node as the scheduler sees it; ``used`` is what the pods bound to it ask for."""

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    used: Amounts = field(default_factory=dict)
    is_cordoned: bool = False


@dataclass(frozen=True)
class Misfit:
    reasons: tuple[str, ...]
    can_change: bool
    """Whether it is only for other pods; False when the node could not take the pod even if it were empty."""


def requests(spec: Object) -> Amounts:
    """What a pod needs at most at one time: its init containers run before the others, but sidecars stay."""
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum(sidecars, own)
            most = _larger(most, sidecars)
        else:
            most = _larger(most, _sum(sidecars, own))
    together = sidecars
    for container in spec["containers"]:
        together = _sum(together, _requests(container))
    return {**_larger(most, together), _PODS: Fraction(1)}


def _requests(container: Object) -> Amounts:
    """A limit counts as the request where only that is given."""
    resources = container.get("resources") or {}
    return {**_amounts(resources.get("limits")), **_amounts(resources.get("requests"))}


def _amounts(quantities: Object | None) -> Amounts:
    return {name: parse(quantity) for name, quantity in (quantities or {}).items()}


def node_of(obj: Object, used: Amounts) -> Node:
    allocatable = _amounts(obj.get("status", {}).get("allocatable"))
    is_cordoned = obj.get("spec", {}).get("unschedulable", False)
    return Node(obj["metadata"]["name"], obj["metadata"].get("labels", {}), allocatable, used, is_cordoned)


def total(amounts: Iterable[Amounts]) -> Amounts:
    found: Amounts = {}
    for one in amounts:
        found = _sum(found, one)
    return found


def _sum(left: Amounts, right: Amounts) -> Amounts:
    return {name: left.get(name, Fraction()) + right.get(name, Fraction()) for name in left.keys() | right.keys()}


def _larger(left: Amounts, right: Amounts) -> Amounts:
    return {name: max(left.get(name, Fraction()), right.get(name, Fraction())) for name in left.keys() | right.keys()}


def misfit(spec: Object, needed: Amounts, node: Node) -> Misfit | None:
    """Why the pod cannot run there now; None when it can."""
    if node.is_cordoned:
        return Misfit((_CORDONED,), can_change=False)
    if not matches_node(spec, node):
        return Misfit((_NO_SELECTOR_MATCH,), can_change=False)
    scarce = [name for name in needed if needed[name] > _free(node, name)]
    if not scarce:
        return None
    reasons = ["Too many pods" if name == _PODS else f"Insufficient {name}" for name in scarce]
    can_change = all(needed[name] <= node.allocatable.get(name, 0) for name in scarce)
    return Misfit(tuple(reasons), can_change)


def _free(node: Node, name: str) -> Fraction:
    if name == _EPHEMERAL and name not in node.allocatable:
        # The disk's size says nothing here: claims and other programs use it too. It counts when it was declared.
        return Fraction(2**63)
    return node.allocatable.get(name, Fraction()) - node.used.get(name, Fraction())


def matches_node(spec: Object, node: Node) -> bool:
    """The pod's nodeSelector and its required node affinity."""
    if not (spec.get("nodeSelector") or {}).items() <= dict(node.labels).items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_matches_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _matches_term(term: Object, node: Node) -> bool:
    rules = [(rule, node.labels) for rule in term.get("matchExpressions") or ()]
    rules += [(rule, {"metadata.name": node.name}) for rule in term.get("matchFields") or ()]
    return bool(rules) and all(_matches_rule(rule, labels.get(rule.get("key", ""))) for rule, labels in rules)


def _matches_rule(rule: Object, value: str | None) -> bool:
    values = rule.get("values") or []
    match rule.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return value is not None and _compares(operator, value, values)
    return False


def _compares(operator: str, value: str, values: list[str]) -> bool:
    try:
        left, right = int(value), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def unschedulable_message(misfits: Iterable[Misfit]) -> str:
    """One misfit per node."""
    found = list(misfits)
    count = len(found)
    reasons = _counted(reason for one in found for reason in one.reasons)
    preemption = _counted(_NO_VICTIMS if one.can_change else _NO_HELP for one in found)
    return f"0/{count} nodes are available: {reasons}. preemption: 0/{count} nodes are available: {preemption}."


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in Counter(reasons).items()))
