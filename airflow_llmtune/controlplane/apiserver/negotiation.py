"""Bodies: which form the client wants, and what it sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_llmtune.controlplane.apiserver import protobuf
from airflow_llmtune.controlplane.apiserver.errors import (
    ApiError,
    bad_request,
    failure,
    not_acceptable,
    unsupported_media_type,
)

JSON_TYPES = ("application/json", "application/yaml")
MAX_BODY_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True)
class Format:
    """``table`` is the server-side printing that ``kubectl get`` asks for."""

    table: bool = False


def accepted_format(accept: str) -> Format:
    """The first of the client's media types that we speak; tables only in v1, no protobuf."""
    if not accept.strip():
        return Format()
    for media_type, parameters in map(_media_type, accept.split(",")):
        if media_type not in {"application/json", "application/*", "*/*"}:
            continue
        wanted = parameters.get("as")
        if wanted is None:
            return Format()
        if (wanted, parameters.get("g"), parameters.get("v")) == ("Table", "meta.k8s.io", "v1"):
            return Format(table=True)
    raise not_acceptable(("application/json",))


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip() for part in text.split(";"))
    return media_type.lower(), dict(pair.split("=", 1) for pair in parameters if "=" in pair)


def content_type(header: str) -> str:
    return _media_type(header)[0] if header else "application/json"


def decode(body: bytes, header: str) -> Any:
    """A JSON, YAML or (small kinds) protobuf body; NaN and Infinity, which Python's parser would take, are refused."""
    sent = content_type(header)
    if sent == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if not sent.endswith(("json", "yaml")):
        raise unsupported_media_type(JSON_TYPES)
    try:
        if sent.endswith("yaml"):
            return yaml.safe_load(body)
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"invalid character in literal {word}")


def decode_object(body: bytes, header: str) -> dict[str, Any]:
    decoded = decode(body, header)
    if not isinstance(decoded, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object)")
    return decoded


def decode_options(body: bytes, header: str) -> Mapping[str, Any]:
    """The optional body of a delete."""
    return decode_object(body, header) if body.strip() else {}


def too_large() -> ApiError:
    message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
    return ApiError(failure(413, "RequestEntityTooLarge", message))
