"""What becomes of a request's path and of headers on the way."""

from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.gateway.filters import (
    changed_request_headers,
    changed_response_headers,
    rewritten_host,
    rewritten_path,
)
from airflow_llmtune.controlplane.gateway.headers import for_client, for_pod, has_body
from airflow_llmtune.controlplane.gateway.request import Asked
from objects import Object


def rewrite(**path: str) -> list[Object]:
    return [{"type": "URLRewrite", "urlRewrite": {"path": path, "hostname": "inner"}}]


@pytest.mark.parametrize(
    ("prefix", "replacement", "path", "rewritten"),
    [
        ("/serving/a", "/", "/serving/a/v1/models", "/v1/models"),
        ("/serving/a", "/", "/serving/a", "/"),
        ("/serving/a/", "/", "/serving/a/v1", "/v1"),
        ("/serving/a", "", "/serving/a/v1", "/v1"),
        ("/serving/a", "/openai", "/serving/a/v1", "/openai/v1"),
        ("/serving/a", "/openai/", "/serving/a", "/openai"),
        ("/serving/a", "/openai", "/serving/a/", "/openai/"),
        ("/", "/openai", "/v1", "/openai/v1"),
        ("/a", "b", "/a/c", "/b/c"),
    ],
)
def test_a_prefix_is_replaced(prefix: str, replacement: str, path: str, rewritten: str) -> None:
    filters = rewrite(type="ReplacePrefixMatch", replacePrefixMatch=replacement)
    assert rewritten_path(filters, prefix, path) == rewritten


def test_a_whole_path_and_the_host_are_replaced() -> None:
    assert rewritten_path(rewrite(type="ReplaceFullPath", replaceFullPath="/health"), "/", "/a/b") == "/health"
    assert rewritten_path(rewrite(type="ReplaceFullPath", replaceFullPath=""), "/", "/a/b") == "/"
    assert (rewritten_host(rewrite(), "outer"), rewritten_host([], "outer")) == ("inner", "outer")


def test_headers_are_set_added_and_removed() -> None:
    change = {"set": [{"name": "A", "value": "new"}], "add": [{"name": "B", "value": "2"}], "remove": ["C"]}
    before = (("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"))
    after = (("b", "1"), ("a", "new"), ("b", "2"))
    assert changed_request_headers([{"requestHeaderModifier": change}], before) == after
    assert changed_response_headers([{"responseHeaderModifier": change}], before) == after
    assert changed_response_headers([{"requestHeaderModifier": change}], before) == before


def test_headers_of_the_connection_and_the_token_stay_here() -> None:
    sent = {
        "host": "outer",
        "authorization": "Bearer t",
        "connection": "keep-alive, X-Hop",
        "x-hop": "1",
        "keep-alive": "5",
        "upgrade": "websocket",
        "expect": "100-continue",
        "x-forwarded-proto": "https",
        "accept": "*/*",
    }
    headers = for_pod(Asked("GET", "outer", "/", headers=tuple(sent.items()), client="127.0.0.1"), "inner")
    assert dict(headers) == {
        "host": "inner",
        "accept": "*/*",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "outer",
        "x-forwarded-proto": "http",
    }
    answer = (("content-type", "a"), ("transfer-encoding", "chunked"), ("set-cookie", "1"), ("set-cookie", "2"))
    assert for_client(answer) == (("content-type", "a"), ("set-cookie", "1"), ("set-cookie", "2"))


@pytest.mark.parametrize(
    ("headers", "has_one", "length"),
    [
        ({}, False, None),
        ({"content-length": "0"}, False, "0"),
        ({"content-length": "5"}, True, "5"),
        ({"transfer-encoding": "chunked"}, True, None),
        ({"transfer-encoding": "chunked", "content-length": "5"}, True, None),
    ],
)
def test_of_two_lengths_of_a_body_only_the_one_that_counts_goes_on(
    headers: dict[str, str], has_one: bool, length: str | None
) -> None:
    request = Asked("POST", "h", "/", headers=tuple(headers.items()))
    assert has_body(request) is has_one
    assert dict(for_pod(request, "h")).get("content-length") == length
