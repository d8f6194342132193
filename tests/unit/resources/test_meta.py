from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import meta
from airflow_llmtune.resources.meta import Outcome, ResourceKind

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")

task_instances = st.tuples(st.text(), st.text(), st.text(), st.integers(-1, 10_000))
attempts = st.integers(1, 999)


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        (ResourceKind("kubeflow.org", "v1beta1", "Experiment", "experiments"), None,
         "/apis/kubeflow.org/v1beta1/namespaces/ns/experiments"),
        (ResourceKind("kubeflow.org", "v1beta1", "Experiment", "experiments"), "x",
         "/apis/kubeflow.org/v1beta1/namespaces/ns/experiments/x"),
        (ResourceKind("", "v1", "Pod", "pods"), "x", "/api/v1/namespaces/ns/pods/x"),
    ],
)  # fmt: skip
def test_a_kind_knows_its_path(kind: ResourceKind, name: str | None, path: str) -> None:
    assert kind.path("ns", name) == path


def test_the_core_group_has_a_bare_api_version() -> None:
    assert ResourceKind("", "v1", "Pod", "pods").api_version == "v1"
    assert ResourceKind("batch", "v1", "Job", "jobs").api_version == "batch/v1"


@given(task_instances, attempts)
def test_names_stay_valid_with_every_suffix_that_katib_appends(who: tuple[str, str, str, int], attempt: int) -> None:
    name = meta.object_name(*who, attempt)
    assert DNS_1035.fullmatch(name)
    assert len(name) <= 40
    for derived in (f"{name}-x7k2m9qp", f"{name}-bayesianoptimization", f"{name}-x7k2m9qp-master-0"):
        assert DNS_1035.fullmatch(derived)
        assert len(derived) <= 63


@given(task_instances, attempts)
def test_labels_are_valid_and_the_selector_finds_them(who: tuple[str, str, str, int], attempt: int) -> None:
    labels = meta.owner_labels(*who, attempt)
    for value in labels.values():
        assert LABEL_VALUE.fullmatch(value)
        assert len(value) <= 63
    key, _, value = meta.identity_selector(*who).partition("=")
    assert labels[key] == value == meta.identity(*who)
    assert int(labels[meta.ATTEMPT_LABEL]) == attempt


@given(task_instances, task_instances)
def test_different_task_instances_have_different_names(
    one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    same = one == other
    assert (meta.object_name(*one, 1) == meta.object_name(*other, 1)) == same
    assert (meta.identity(*one) == meta.identity(*other)) == same


@pytest.mark.parametrize(
    ("dag", "task", "start"),
    [
        ("tune_llm", "tune", "tune-llm-tune-"),
        ("tune_llm", "group.tune", "tune-llm-tune-"),
        ("9lives", "tune", "t9lives-tune-"),
        ("ünïcode", "täsk", "n-code-t-sk-"),
        ("…", "…", "t-"),
        ("a_very_long_dag_name_that_never_ends", "tune", "a-very-long-dag-name-tha-tune-"),
        ("dag", "a_very_long_task_name_that_never_ends", "dag-a-very-long-task-name-tha-"),
        ("a_very_long_dag_name", "a_very_long_task_name", "a-very-long-da-a-very-long-ta-"),
    ],
)
def test_a_name_can_be_read(dag: str, task: str, start: str) -> None:
    name = meta.object_name(dag, task, "manual__2026-11-22", -1, 1)
    assert name.startswith(start)
    assert re.fullmatch(r"[0-9a-f]{8}-1", name[len(start) :])


def test_the_attempt_changes_the_name_and_not_the_identity() -> None:
    who = ("dag", "task", "run", -1)
    assert meta.object_name(*who, 1)[:-2] == meta.object_name(*who, 2)[:-2]
    assert meta.object_name(*who, 1) != meta.object_name(*who, 2)


def test_the_map_index_is_a_label_of_mapped_tasks_only() -> None:
    assert "map_index" not in meta.owner_labels("dag", "task", "run", -1, 1)
    assert meta.owner_labels("dag", "task", "run", 0, 1)["map_index"] == "0"


@pytest.mark.parametrize(
    ("text", "label"),
    [("plain-1.2_x", "plain-1.2_x"), ("manual__2026-11-22T09:00:00+00:00", "manual__2026-11-22T09_00_00_00_00-")],
)
def test_a_label_that_had_to_change_carries_a_hash(text: str, label: str) -> None:
    value = meta.owner_labels("dag", "task", text, -1, 1)["run_id"]
    assert value == label or (value.startswith(label) and len(value) == len(label) + 8)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0), ("1e-05", 1e-5), (" 2 ", 2.0), (0.5, 0.5), ("nan", None), ("inf", None), ("-inf", None), ("", None),
        ("unavailable", None), (None, None), (True, None), ("1_000", None), ("1,000", None), ([1], None),
        (float("nan"), None), (10**400, None),
    ],
)  # fmt: skip
def test_only_finite_numbers_are_numbers(value: object, number: float | None) -> None:
    assert meta.finite(value) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [("8", 8), ("8.0", 8), (8.0, 8), ("1e3", 1000), ("9007199254740993", 2**53 + 1), ("8.5", None), ("x", None)],
)
def test_whole_numbers_are_exact(value: object, number: int | None) -> None:
    assert meta.whole(value) == number


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (1e-5, "1e-05"), (1.0, "1.0"), (3, "3"), ("x", "x")]
)
def test_scalars_become_the_texts_that_the_trainer_reads(value: str | float | bool, text: str) -> None:
    assert meta.text_of(value) == text


def test_a_condition_that_is_listed_as_false_does_not_hold() -> None:
    conditions = [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True", "reason": "R"}]
    obj = {"status": {"conditions": conditions}}
    assert meta.condition(obj, "Running") is None
    assert meta.condition(obj, "Succeeded") == conditions[1]
    assert meta.condition({}, "Running") is None
    assert meta.condition({"status": None}, "Running") is None


phases = st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])


@given(st.builds(Outcome, phases, st.text(), st.text(max_size=1000)))
def test_an_event_carries_an_outcome_unchanged(outcome: Outcome) -> None:
    event = json.loads(json.dumps(outcome.to_event("name", "namespace", "uid")))
    assert Outcome.from_event(event) == outcome
    assert (event["name"], event["namespace"], event["uid"]) == ("name", "namespace", "uid")


def test_an_event_bounds_its_message() -> None:
    message = Outcome("Failed", "R", "x" * 5000).to_event("name", "namespace", "uid")["message"]
    assert len(message) == 1000
    assert message.endswith("…")


def test_an_outcome_is_finished_when_it_succeeded_or_failed() -> None:
    assert [Outcome(phase).finished for phase in ("Pending", "Running", "Succeeded", "Failed")] == [
        False,
        False,
        True,
        True,
    ]


def test_only_what_a_process_can_be_given_is_plain() -> None:
    assert all(map(meta.is_plain, ("a\n", "日本語", True, 1, 0.5, 10**300)))
    assert not any(map(meta.is_plain, ("a\0", "\ud800", 10**5000, float("nan"), None, [], b"a")))


def test_metadata_leaves_out_what_is_empty() -> None:
    assert meta.metadata("x", "ns", {}, {}) == {"name": "x", "namespace": "ns"}
    assert meta.metadata("x", "ns", {"a": "1"}, {"b": "2"})["annotations"] == {"b": "2"}
