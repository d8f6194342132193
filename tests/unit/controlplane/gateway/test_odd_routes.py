"""Whatever a client writes into a route is refused by admission, or can be served."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.gateway.controller import HttpRouteController
from airflow_llmtune.controlplane.gateway.filters import changed_request_headers, rewritten_host, rewritten_path
from airflow_llmtune.controlplane.gateway.request import Asked
from airflow_llmtune.controlplane.gateway.table import RoutingTable
from objects import Object

REWRITE = {"hostname": "inner", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
ROUTE: Object = {
    "metadata": {"name": "model", "namespace": "default"},
    "spec": {
        "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
        "hostnames": ["localhost"],
        "rules": [
            {
                "matches": [
                    {
                        "path": {"type": "PathPrefix", "value": "/"},
                        "headers": [{"name": "a", "value": "1", "type": "Exact"}],
                        "queryParams": [{"name": "b", "value": "1"}],
                        "method": "GET",
                    }
                ],
                "filters": [
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "c", "value": "1"}]}},
                    {"type": "URLRewrite", "urlRewrite": REWRITE},
                ],
                "backendRefs": [{"name": "model", "port": 80, "weight": 1}],
                "timeouts": {"request": "1s"},
            }
        ],
    },
}
ODD: list[Any] = [None, 0, -1, 2**40, 0.5, True, "", "x", "/", "[", "RegularExpression", [], [None], {}, {"x": 1}]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(keys):
        yield value, key
        yield from places(one)


@pytest.mark.parametrize("odd", ODD, ids=repr)
async def test_an_odd_value_anywhere(registry: Registry, clock: Clock, odd: Any) -> None:
    table, controller = RoutingTable(registry), HttpRouteController(registry, clock)
    refusals = set()
    request = Asked("GET", "localhost", "/x", "b=1", (("a", "1"),))
    for index in range(len(list(places(ROUTE["spec"])))):
        route = copy.deepcopy(ROUTE)
        owner, key = list(places(route["spec"]))[index]
        owner[key] = odd
        try:
            registry.create(HTTP_ROUTE, route)
        except ApiError as error:
            refusals.add(error.code)
            continue
        await controller.reconcile("default", "model")
        table.catch_up()
        match = table.find(request)
        if match is not None:
            path = rewritten_path(match.rule.filters, match.path, request.path)
            assert path.startswith("/")
            assert rewritten_host(match.rule.filters, "h")
            assert changed_request_headers(match.rule.filters, request.headers)
        registry.delete(HTTP_ROUTE, "default", "model")
    assert refusals == {422}
