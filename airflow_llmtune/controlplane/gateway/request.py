"""What routing looks at of a request. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

Headers = tuple[tuple[str, str], ...]

_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """``path`` is as it was sent, with its escapes; names of headers are in small letters."""

    method: str
    host: str
    path: str
    query: str = ""
    headers: Headers = ()
    client: str = ""

    @property
    def hostname(self) -> str:
        """Without the port."""
        name = self.host.lower()
        return name if name.endswith("]") else name.rpartition(":")[0] or name

    @property
    def has_dot_segments(self) -> bool:
        """Whether ``.`` or ``..`` is a part of its path, which clients resolve before they send it."""
        return _DOT_SEGMENT.search(self.path) is not None

    @property
    def parameters(self) -> Mapping[str, str]:
        """Of the query; the first of each name counts."""
        return dict(reversed(parse_qsl(self.query, keep_blank_values=True)))

    def header(self, name: str) -> str | None:
        """All values of the name in one text; None when it is not there."""
        found = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(found) if found else None


def asked(scope: Mapping[str, Any]) -> Asked:
    """From an ASGI scope."""
    headers = tuple(_decoded(scope["headers"]))
    return Asked(
        method=scope["method"],
        host=dict(headers).get("host", ""),
        path=scope["raw_path"].decode("ascii"),
        query=scope["query_string"].decode("ascii", "replace"),
        headers=headers,
        client=(scope.get("client") or ("",))[0],
    )


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    return ((name.decode("ascii").lower(), value.decode("utf-8", "replace")) for name, value in headers)
