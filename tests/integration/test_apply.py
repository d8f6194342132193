"""Server-side apply as the hook sends it: create, change, conflicts, and a look at what would be."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from airflow_llmtune.exceptions import ForeignObjectError, KubernetesApiError
from airflow_llmtune.operators.applying import apply
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import ResourceKind

CONFIG_MAP = ResourceKind("", "v1", "ConfigMap", "configmaps")


def config_map(**data: str) -> dict[str, Any]:
    metadata = {"name": f"apply-{uuid.uuid4().hex[:8]}", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_what_was_applied_before_and_is_left_out_goes_away(ask):
    manifest = config_map(a="1", b="2")
    created = ask(lambda client: client.apply(CONFIG_MAP, "default", manifest))
    changed = ask(lambda client: client.apply(CONFIG_MAP, "default", {**manifest, "data": {"a": "3"}}))
    assert created["data"] == {"a": "1", "b": "2"}
    assert changed["data"] == {"a": "3"}
    (entry,) = changed["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("airflow-llmtune", "Apply")


def test_a_dry_run_tells_what_would_be_and_changes_nothing(ask):
    manifest = config_map(a="1")
    preview = ask(lambda client: client.apply(CONFIG_MAP, "default", manifest, dry_run=True))
    found = ask(lambda client: client.find(CONFIG_MAP, "default", manifest["metadata"]["name"]))
    assert (preview["data"], found) == ({"a": "1"}, None)


def test_a_field_that_somebody_else_has_set_is_named_with_its_manager(ask):
    manifest = config_map(a="1")
    ask(lambda client: client.apply(CONFIG_MAP, "default", manifest))
    name = manifest["metadata"]["name"]
    ask(lambda client: client.patch(CONFIG_MAP, "default", name, {"data": {"a": "by hand"}}))
    change = {**manifest, "data": {"a": "2"}}
    with pytest.raises(ForeignObjectError, match=r"(?s)\.data\.a: conflict with .*Fix: .*force_conflicts=True"):
        ask(lambda client: apply(client, CONFIG_MAP, change, force=False, dry_run=True))
    forced = ask(lambda client: apply(client, CONFIG_MAP, change, force=True, dry_run=False))
    assert forced["data"] == {"a": "2"}


def test_an_apply_of_an_old_resource_version_is_refused(ask):
    manifest = config_map(a="1")
    first = ask(lambda client: client.apply(CONFIG_MAP, "default", manifest))
    ask(lambda client: client.apply(CONFIG_MAP, "default", {**manifest, "data": {"a": "2"}}))
    metadata = {**manifest["metadata"], "resourceVersion": first["metadata"]["resourceVersion"]}
    with pytest.raises(KubernetesApiError) as refused:
        ask(lambda client: client.apply(CONFIG_MAP, "default", {**manifest, "metadata": metadata}, force=True))
    assert refused.value.code == 409


def test_an_unknown_field_is_refused_before_anything_changes(ask):
    manifest = config_map(a="1")
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": manifest["metadata"], "spec": {"parallelismus": 1}}
    with pytest.raises(KubernetesApiError, match="parallelismus") as refused:
        ask(lambda client: client.apply(job.KIND, "default", body, dry_run=True))
    assert refused.value.code in (400, 422, 500)


def test_a_kind_that_is_not_installed_says_so(ask):
    kind = ResourceKind("serving.example.com", "v1", "Model", "models")
    manifest = {**config_map(), "apiVersion": "serving.example.com/v1", "kind": "Model"}
    with pytest.raises(KubernetesApiError, match="Fix: install KServe, or create the namespace 'default'"):
        ask(lambda client: apply(client, kind, manifest, force=False, dry_run=True))
