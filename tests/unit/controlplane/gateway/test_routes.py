"""Which rule a request falls under."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.gateway.request import Asked, asked
from airflow_llmtune.controlplane.gateway.routes import Match, find, fits_hostname, matches, timeout_seconds
from objects import Object


def route(name: str, *stated: Object, created: str = "2026-11-22T09:00:00Z", **spec: Any) -> Object:
    """A rule for each match."""
    rules = [{"matches": [{"path": path("/"), **one}], "backendRefs": []} for one in stated]
    metadata = {"name": name, "namespace": "default", "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"rules": rules, **spec}}


def path(value: str, type_: str = "PathPrefix") -> Object:
    return {"type": type_, "value": value}


def value(name: str, text: str, type_: str = "Exact") -> Object:
    return {"name": name, "value": text, "type": type_}


def found(routes: list[Object], target: str = "/", host: str = "localhost", method: str = "GET", **headers: str) -> str:
    """The route's name and the rule's number."""
    target, _, query = target.partition("?")
    match = find(matches(routes), Asked(method, host, target, query, tuple(headers.items())))
    return f"{match.rule.key[1]} {match.rule.key[2]}" if isinstance(match, Match) else ""


@pytest.mark.parametrize(
    ("stated", "target", "fits"),
    [
        (path("/"), "/anything/at/all", True),
        (path("/a"), "/a", True),
        (path("/a"), "/a/", True),
        (path("/a"), "/a/b", True),
        (path("/a/"), "/a", True),
        (path("/a"), "/ab", False),
        (path("/a"), "/b/a", False),
        (path("/a", "Exact"), "/a", True),
        (path("/a", "Exact"), "/a/", False),
        (path("^/.*$", "RegularExpression"), "/v1/models", True),
        (path("/v[12]/[a-z]+", "RegularExpression"), "/v2/models", True),
        (path("/v[12]", "RegularExpression"), "/v2/models", False),
    ],
)
def test_paths(stated: Object, target: str, fits: bool) -> None:
    assert bool(found([route("r", {"path": stated})], target)) is fits


@pytest.mark.parametrize(
    ("pattern", "hostname", "fits"),
    [
        ("", "any.example.com", True),
        ("model.example.com", "model.example.com", True),
        ("model.example.com", "other.example.com", False),
        ("*.example.com", "model.example.com", True),
        ("*.example.com", "a.model.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
    ],
)
def test_hostnames(pattern: str, hostname: str, fits: bool) -> None:
    assert fits_hostname(pattern, hostname) is fits


@pytest.mark.parametrize(
    ("host", "hostname"), [("Model.Example.com:80", "model.example.com"), ("a", "a"), ("[::1]:80", "[::1]")]
)
def test_the_host_is_compared_without_its_port_and_in_small_letters(host: str, hostname: str) -> None:
    assert Asked("GET", host, "/").hostname == hostname


def test_the_longest_path_prefix_comes_first_whatever_its_place() -> None:
    routes = [route("r", {"path": path("/")}, {"path": path("/serving/a")}, {"path": path("/serving")})]
    assert [found(routes, target) for target in ("/x", "/serving/a/v1", "/serving/b")] == ["r 0", "r 1", "r 2"]


def test_an_exact_path_comes_before_prefixes_and_these_before_expressions() -> None:
    expression, exact = path("/a/[a-z0-9/]+", "RegularExpression"), path("/a/b", "Exact")
    routes = [route("r", {"path": expression}, {"path": path("/a/b")}, {"path": exact})]
    assert [found(routes, target) for target in ("/a/b", "/a/b/c", "/a/c")] == ["r 2", "r 1", "r 0"]


def test_more_of_a_hostname_comes_before_a_longer_path() -> None:
    everywhere = route("everywhere", {"path": path("/v1/models")})
    wildcard = route("wildcard", {}, hostnames=["*.example.com"])
    exact = route("exact", {}, hostnames=["a.example.com", "b.example.com"])
    routes = [everywhere, wildcard, exact]
    hosts = ("b.example.com", "c.example.com", "else")
    assert [found(routes, "/v1/models", host) for host in hosts] == ["exact 0", "wildcard 0", "everywhere 0"]


def test_a_method_more_headers_and_more_parameters_come_first() -> None:
    by_header = {"headers": [value("X-User", "me"), value("x-tier", "gold|silver", "RegularExpression")]}
    by_parameter = {"queryParams": [value("beta", "1")]}
    routes = [route("r", {}, by_parameter, by_header, {"method": "POST"})]
    assert found(routes, method="POST", **{"x-user": "me"}) == "r 3"
    assert found(routes, **{"x-user": "me", "x-tier": "gold"}) == "r 2"
    assert found(routes, "/?beta=1&beta=2", **{"x-user": "me"}) == "r 1"
    assert found(routes, "/?beta=2", **{"x-user": "you", "x-tier": "gold"}) == "r 0"


def test_among_equals_the_older_route_and_the_first_name_count() -> None:
    old = route("z", {}, created="2026-11-22T08:00:00Z")
    assert found([route("b", {}), route("a", {})]) == "a 0"
    assert found([route("b", {}), route("a", {}), old]) == "z 0"


def test_a_backend_of_another_kind_or_namespace_keeps_its_share_and_leads_nowhere() -> None:
    own = {"group": "", "kind": "Service", "name": "s", "port": 80, "weight": 1}
    pool = {**own, "group": "inference.networking.k8s.io", "kind": "InferencePool"}
    one = route("r", {})
    one["spec"]["rules"][0]["backendRefs"] = [own, {**own, "namespace": "other"}, pool]
    (match,) = matches([one])
    assert [backend.service for backend in match.rule.backends] == ["s", "", ""]


@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [
        ({}, None),
        ({"request": "60s"}, 60.0),
        ({"request": "1m30s"}, 90.0),
        ({"request": "1h"}, 3600.0),
        ({"request": "0s"}, None),
        ({"request": "10s", "backendRequest": "500ms"}, 0.5),
        ({"request": "0s", "backendRequest": "2s"}, 2.0),
    ],
)
def test_timeouts(timeouts: dict[str, str], seconds: float | None) -> None:
    assert timeout_seconds(timeouts) == seconds


def test_a_request_is_read_as_it_was_sent() -> None:
    scope = {
        "method": "POST",
        "raw_path": b"/a%20b",
        "query_string": b"x=%31",
        "headers": [(b"Host", b"h:1"), (b"x-a", b"1"), (b"X-A", "ü".encode())],
        "client": ("127.0.0.1", 1),
    }
    read = asked(scope)
    assert (read.host, read.path, read.query, read.client) == ("h:1", "/a%20b", "x=%31", "127.0.0.1")
    assert (read.header("X-a"), read.header("x-b"), read.parameters) == ("1, ü", None, {"x": "1"})
