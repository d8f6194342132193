"""What Gateway API's definition says to HTTPRoutes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.built_in_columns import BUILT_IN_COLUMNS
from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused


def route(*rules: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "model", "namespace": "default"}, "spec": {"rules": list(rules), **spec}}


def prefix(value: str, type_: str = "PathPrefix") -> Object:
    return {"path": {"type": type_, "value": value}}


def rewrite(**path: str) -> Object:
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", **path}}}


def test_what_is_not_said_is_filled_in_and_unknown_fields_vanish(registry: Registry) -> None:
    rule = {"matches": [{"headers": [{"name": "a", "value": "b"}]}], "backendRefs": [{"name": "s", "port": 80}]}
    parents = [{"name": "kserve-ingress-gateway", "namespace": "kserve"}]
    made = registry.create(HTTP_ROUTE, route({**rule, "sessions": {}}, parentRefs=parents))
    assert made["spec"] == {
        "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", **parents[0]}],
        "rules": [
            {
                "matches": [
                    {
                        "path": {"type": "PathPrefix", "value": "/"},
                        "headers": [{"type": "Exact", "name": "a", "value": "b"}],
                    }
                ],
                "backendRefs": [{"group": "", "kind": "Service", "name": "s", "port": 80, "weight": 1}],
            }
        ],
    }


def test_a_route_without_rules_matches_everything(registry: Registry) -> None:
    made = registry.create(HTTP_ROUTE, {"metadata": {"name": "all", "namespace": "default"}})
    assert made["spec"]["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]


@pytest.mark.parametrize(
    ("rule", "where", "text"),
    [
        ({"matches": [prefix("v1")]}, ".matches[0].path", "value must be an absolute path and start with '/'"),
        ({"matches": [prefix("/a//b", "Exact")]}, ".matches[0].path", "must not contain '//'"),
        ({"matches": [prefix("/a/..")]}, ".matches[0].path", "must not end with '/..'"),
        ({"matches": [prefix("/a b")]}, ".matches[0].path", "must only contain valid characters"),
        ({"matches": [{"method": "BREW"}]}, ".matches[0].method", 'Unsupported value: "BREW"'),
        ({"backendRefs": [{"name": "s"}]}, ".backendRefs[0]", "Must have port for Service reference"),
        ({"backendRefs": [{"name": "s", "port": 80, "weight": -1}]}, ".backendRefs[0].weight", "greater than or equal"),
        ({"filters": [{"type": "URLRewrite"}]}, ".filters[0]", "filter.urlRewrite must be specified"),
        ({"filters": [{"type": "CORS", "cors": {}, "urlRewrite": {}}]}, ".filters[0]", "filter.urlRewrite must be nil"),
        (
            {"filters": [rewrite(replacePrefixMatch="/"), rewrite(replacePrefixMatch="/")]},
            ".filters",
            "URLRewrite filter cannot be repeated",
        ),
        ({"filters": [rewrite()]}, ".filters[0].urlRewrite.path", "replacePrefixMatch must be specified when type"),
        (
            {"filters": [rewrite(replacePrefixMatch="/", replaceFullPath="/")]},
            ".filters[0].urlRewrite.path",
            "type must be 'ReplaceFullPath' when replaceFullPath is set",
        ),
        (
            {"matches": [prefix("/a"), prefix("/b")], "filters": [rewrite(replacePrefixMatch="/")]},
            "",
            "exactly one PathPrefix match must be specified",
        ),
        (
            {
                "matches": [prefix("/a.*", "RegularExpression")],
                "backendRefs": [{"name": "s", "port": 80, "filters": [rewrite(replacePrefixMatch="/")]}],
            },
            "",
            "Within backendRefs, When using URLRewrite",
        ),
        (
            {
                "filters": [{"type": "RequestRedirect", "requestRedirect": {}}, rewrite(replacePrefixMatch="/")],
                "backendRefs": [{"name": "s", "port": 80}],
            },
            ".filters",
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
        ),
        ({"timeouts": {"request": "soon"}}, ".timeouts.request", "should match"),
    ],
)
def test_rules_that_are_refused(registry: Registry, rule: Object, where: str, text: str) -> None:
    error = refused(registry.create, HTTP_ROUTE, route(rule))
    causes = {cause["field"]: cause["message"] for cause in error.status["details"]["causes"]}
    assert error.code == 422
    assert text in causes[f"spec.rules[0]{where}"]


@pytest.mark.parametrize(("spec", "shown"), [({}, ""), ({"hostnames": ["a.io", "*.b.io"]}, '["a.io","*.b.io"]')])
def test_its_hostnames_are_shown(spec: Object, shown: str) -> None:
    _, hostnames, _ = BUILT_IN_COLUMNS[HTTP_ROUTE]
    assert hostnames.read({"spec": spec}, datetime.now(UTC)) == shown


def test_too_many_matches_and_bad_hostnames_are_refused(registry: Registry) -> None:
    rules = [{"matches": [prefix(f"/{rule}/{index}") for index in range(50)]} for rule in range(3)]
    assert "must be less than 128" in refused(registry.create, HTTP_ROUTE, route(*rules)).message
    wrong = refused(registry.create, HTTP_ROUTE, route({}, hostnames=["no_name"]))
    assert "spec.hostnames[0] in body should match" in wrong.message


def test_an_update_is_checked_and_a_deleted_one_can_go(registry: Registry) -> None:
    made = registry.create(HTTP_ROUTE, route({}))
    made["metadata"]["finalizers"] = ["acme.io/hold"]
    made = registry.update(HTTP_ROUTE, made)
    wrong = {**made, "spec": {"rules": [{"matches": [prefix("v1")]}]}}
    assert "absolute path" in refused(registry.update, HTTP_ROUTE, wrong).message
    registry.delete(HTTP_ROUTE, "default", "model")
    left = registry.get(HTTP_ROUTE, "default", "model")
    left["metadata"]["finalizers"] = []
    registry.update(HTTP_ROUTE, left)
    assert registry.find(HTTP_ROUTE, "default", "model") is None
