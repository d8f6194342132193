"""Bodies: which form the client wants, and what it sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
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
# Parsed in about a millisecond, which is less than a change of threads may cost under load.
_QUICK_YAML_BYTES = 2048
_MOST_LEVELS = 200
_TOO_DEEP = f"exceeded max depth of {_MOST_LEVELS}"


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


def accepts_aggregated_discovery(accept: str) -> bool:
    wanted = ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2")
    return any(
        (parameters.get("as"), parameters.get("g"), parameters.get("v")) == wanted and media_type == "application/json"
        for media_type, parameters in map(_media_type, accept.split(","))
    )


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip() for part in text.split(";"))
    return media_type.lower(), dict(pair.split("=", 1) for pair in parameters if "=" in pair)


def content_type(header: str) -> str:
    return _media_type(header)[0] if header else "application/json"


@dataclass(frozen=True)
class Body:
    """What a client sent; ``parsed`` holds YAML, which takes too long for the event loop to read when asked."""

    raw: bytes = b""
    header: str = ""
    parsed: Any = None

    @property
    def media_type(self) -> str:
        return content_type(self.header)

    def value(self) -> Any:
        """JSON, YAML or (small kinds) protobuf; NaN and Infinity, which Python's parser would take, are refused."""
        if self.media_type.endswith("yaml"):
            return self.parsed
        if self.media_type == protobuf.MEDIA_TYPE:
            return protobuf.decode(self.raw)
        if not self.media_type.endswith("json"):
            raise unsupported_media_type(JSON_TYPES)
        return _parsed(_json, self.raw)

    def object(self) -> dict[str, Any]:
        decoded = self.value()
        if not isinstance(decoded, dict):
            raise bad_request("the object provided is unrecognized (must be of type Object)")
        return decoded

    def options(self) -> Mapping[str, Any]:
        """The optional body of a delete."""
        return self.object() if self.raw.strip() else {}


async def received(raw: bytes, header: str) -> Body:
    """A body that is ready to be looked at without further waiting."""
    if not content_type(header).endswith("yaml"):
        return Body(raw, header)
    if raw.lstrip().startswith(b"{"):
        with contextlib.suppress(ApiError):
            return Body(raw, header, _parsed(_json, raw))  # kubectl's apply says YAML and sends JSON.
    if len(raw) < _QUICK_YAML_BYTES:
        return Body(raw, header, _parsed(_yaml, raw))
    return Body(raw, header, await asyncio.to_thread(_parsed, _yaml, raw))


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        parsed = parse(raw)
        _check_depth(parsed, raw)
        return parsed
    except (TypeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def _check_depth(parsed: Any, raw: bytes) -> None:
    """Whoever works on an object later calls itself for each level."""
    if raw.count(b"{") + raw.count(b"[") + raw.count(b"\n") < _MOST_LEVELS:
        return
    level = [parsed]
    for _ in range(_MOST_LEVELS):
        below = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in below for one in values]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _json(raw: bytes) -> Any:
    return json.loads(raw, parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"invalid character in literal {word}")


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as JSON knows it: what looks like a date stays a text."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(raw: bytes) -> Any:
    _check_events(raw)
    # YAML has keys and values that JSON has not.
    return json.loads(json.dumps(yaml.load(raw, _YamlLoader), allow_nan=False))  # noqa: S506  a safe loader


def _check_events(raw: bytes) -> None:
    """A few nested aliases make gigabytes of a small body; and the loader, which is C, overflows its stack."""
    levels = 0
    for event in yaml.parse(raw, _YamlLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("yaml: aliases are not supported")
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if levels > _MOST_LEVELS:
            raise ValueError(_TOO_DEEP)


def too_large() -> ApiError:
    message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
    return ApiError(failure(413, "RequestEntityTooLarge", message))
