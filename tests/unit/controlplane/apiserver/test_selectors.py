"""Label and field selectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import EVENT, EXPERIMENT, JOB, NAMESPACE, NODE, POD, Kind
from airflow_llmtune.controlplane.apiserver.selectors import matcher, wanted_name

LABELS = {"app": "web", "tier": "front", "katib.kubeflow.org/trial": "t-1", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("absent!=x", True),
        ("absent=x", False),
        ("app", True),
        ("absent", False),
        ("!absent", True),
        ("!app", False),
        ("app in (db, web)", True),
        ("app in (db)", False),
        ("app in(web)", True),
        ("absent in (db)", False),
        ("app notin (db)", True),
        ("app notin (web,db)", False),
        ("absent notin (web)", True),
        ("app=web,tier=front", True),
        ("app=web,tier=back", False),
        ("app in (web,db),tier!=back,!absent", True),
        ("katib.kubeflow.org/trial=t-1", True),
        ("empty=", True),
        ("app=", False),
        (" app = web ", True),
    ],
)
def test_label_selectors(selector: str, expected: bool) -> None:
    matches = matcher(POD, selector)
    assert matches is not None
    assert matches({"metadata": {"labels": LABELS}}) is expected


def test_an_object_without_labels_is_matched_too() -> None:
    matches = matcher(POD, "!app")
    assert matches is not None
    assert matches({"metadata": {}})
    assert matches({"metadata": {"labels": None}})


@pytest.mark.parametrize("selector", ["", "  "])
def test_no_selector_needs_no_predicate(selector: str) -> None:
    assert matcher(POD, selector, selector) is None


@pytest.mark.parametrize("selector", ["=x", "a=b=c", "a in b", "a in (b", "a,,b", "-a=b", "a b", "a>1", "/x=y"])
def test_a_label_selector_that_cannot_be_read_is_a_bad_request(selector: str) -> None:
    with pytest.raises(ApiError) as raised:
        matcher(POD, selector)
    assert (raised.value.code, raised.value.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("kind", "selector", "obj", "expected"),
    [
        (POD, "metadata.name=x", {"metadata": {"name": "x"}}, True),
        (POD, "metadata.name!=x", {"metadata": {"name": "x"}}, False),
        (
            POD,
            "status.phase=Running,spec.nodeName==n",
            {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}},
            True,
        ),
        (POD, "status.phase!=Running", {}, True),
        (POD, "spec.nodeName=", {}, True),
        (EVENT, "involvedObject.name=p,reason=Started", {"involvedObject": {"name": "p"}, "reason": "Started"}, True),
        (EVENT, "source=kubelet", {"source": {"component": "kubelet"}}, True),
        (JOB, "status.successful=0", {}, True),
        (JOB, "status.successful=2", {"status": {"succeeded": 2}}, True),
        (NAMESPACE, "status.phase=Active", {"status": {"phase": "Active"}}, True),
        (EXPERIMENT, "metadata.namespace=n", {"metadata": {"namespace": "n"}}, True),
        (NODE, "spec.unschedulable=false", {}, True),
        (NODE, "spec.unschedulable=true", {"spec": {"unschedulable": True}}, True),
        (replace(EXPERIMENT, selectable=("spec.size",)), "spec.size=s", {"spec": {"size": "s"}}, True),
    ],
)
def test_field_selectors(kind: Kind, selector: str, obj: dict[str, Any], expected: bool) -> None:
    matches = matcher(kind, "", selector)
    assert matches is not None
    assert matches({"metadata": {}} | obj) is expected


@pytest.mark.parametrize(
    ("kind", "selector"),
    [(EXPERIMENT, "status.phase=x"), (POD, "spec.x=1"), (NAMESPACE, "metadata.namespace=x"), (POD, "nonsense")],
)
def test_a_field_that_is_not_offered_is_a_bad_request(kind: Kind, selector: str) -> None:
    with pytest.raises(ApiError) as raised:
        matcher(kind, "", selector)
    assert raised.value.code == 400


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("metadata.name=x", "x"),
        (" metadata.name==x ", "x"),
        ("metadata.name!=x", ""),
        ("metadata.name=x,a=b", ""),
        ("", ""),
    ],
)
def test_one_name_alone_is_recognised(selector: str, name: str) -> None:
    assert wanted_name(selector) == name


def test_both_selectors_must_agree() -> None:
    matches = matcher(POD, "app=web", "metadata.name=x")
    assert matches is not None
    assert matches({"metadata": {"name": "x", "labels": {"app": "web"}}})
    assert not matches({"metadata": {"name": "y", "labels": {"app": "web"}}})
    assert not matches({"metadata": {"name": "x", "labels": {}}})
