"""Which headers go on to the pod and back to the client. Pure."""

from __future__ import annotations

from airflow_llmtune.controlplane.gateway.request import Asked, Headers

# Of one connection, not of the request (RFC 9110, 7.6.1); "trailer" as well, since trailers are not passed on.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The token opens the whole control plane: no model server may see it. An expectation has been met here already.
_NOT_FOR_PODS = frozenset(
    {"authorization", "expect", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
)


def has_body(asked: Asked) -> bool:
    return asked.header("transfer-encoding") is not None or asked.header("content-length") not in {None, "0"}


def for_pod(asked: Asked, host: str) -> Headers:
    before = asked.header("x-forwarded-for")
    kept = _end_to_end(asked.headers)
    # With both, the length is not the one that counts (RFC 9112, 6.3).
    dropped = _NOT_FOR_PODS | ({"content-length"} if asked.header("transfer-encoding") is not None else set())
    return (
        ("host", host),
        *((name, value) for name, value in kept if name not in dropped),
        ("x-forwarded-for", f"{before}, {asked.client}" if before else asked.client),
        ("x-forwarded-host", asked.host),
        ("x-forwarded-proto", "http"),
    )


def for_client(headers: Headers) -> Headers:
    return _end_to_end(headers)


def _end_to_end(headers: Headers) -> Headers:
    named = {word.strip().lower() for name, value in headers if name == "connection" for word in value.split(",")}
    return tuple((name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in named)
