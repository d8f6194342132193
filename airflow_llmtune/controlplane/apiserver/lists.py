"""Lists over HTTP: selectors, resourceVersion semantics and pages that show one consistent state."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request, expired, too_large_resource_version
from airflow_llmtune.controlplane.apiserver.list_options import check_list_options
from airflow_llmtune.controlplane.apiserver.selectors import matcher, wanted_name
from airflow_llmtune.controlplane.apiserver.targets import integer
from airflow_llmtune.controlplane.apiserver.versions import raw_as
from airflow_llmtune.controlplane.apiserver.watch import parse_resource_version
from airflow_llmtune.controlplane.store import CompactedError, Entry, Key, Store

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind
    from airflow_llmtune.controlplane.apiserver.targets import Target

_CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
_WHATEVER_IS_NOW = -1
"""The revision of a token that gives consistency up."""


@dataclass(frozen=True)
class Page:
    entries: list[Entry]
    metadata: dict[str, Any]


def read_page(store: Store, target: Target, query: Mapping[str, str]) -> Page:
    """The part of a list that the query's limit, continue, selectors and resourceVersion ask for."""
    check_list_options(query)
    kind = target.kind
    matches = matcher(kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    revision, after = _position(store, query)
    scanned = iter(_scan(store, target, revision, after, wanted_name(query.get("fieldSelector", ""))))
    found = scanned if matches is None else (entry for entry in scanned if matches(entry.view))
    limit = integer(query, "limit") or 0
    if limit <= 0:
        return Page(list(found), {"resourceVersion": str(revision)})
    entries = list(islice(found, limit))
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if next(found, None) is not None:
        metadata["continue"] = _continue_token(revision, entries[-1].key)
        if matches is None:
            metadata["remainingItemCount"] = 1 + sum(1 for _ in found)
    return Page(entries, metadata)


def _position(store: Store, query: Mapping[str, str]) -> tuple[int, Key | None]:
    """The revision to show and the key behind which the page starts."""
    token = query.get("continue", "")
    if token:
        revision, after = _parse_continue(token)
        return (store.revision if revision == _WHATEVER_IS_NOW else revision), after
    wanted = parse_resource_version(query.get("resourceVersion", ""))
    if wanted is None:
        return store.revision, None
    if wanted > store.revision:
        raise too_large_resource_version(wanted, store.revision)
    return (wanted if query.get("resourceVersionMatch") == "Exact" else store.revision), None


def _scan(store: Store, target: Target, revision: int, after: Key | None, name: str) -> Iterable[Entry]:
    if revision == store.revision:
        if name and target.namespace is not None:
            # What clients that wait for one object ask for: no need to look at all others.
            entry = store.get(target.kind, target.namespace, name)
            return [] if entry is None or (after is not None and entry.key <= after) else [entry]
        return store.scan(target.kind, target.namespace, after=after)
    try:
        then = store.scan_at(target.kind, revision, target.namespace)
    except CompactedError as error:
        if after is None:
            raise expired(f"The resourceVersion is too old: {error}") from None
        refused = expired(_CONTINUE_TOO_OLD)
        refused.status["metadata"] = {"continue": _continue_token(_WHATEVER_IS_NOW, after)}
        raise refused from None
    return (entry for entry in then if after is None or entry.key > after)


def _continue_token(revision: int, last: Key) -> str:
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": list(last)})
    return base64.urlsafe_b64encode(token.encode()).decode()


def _parse_continue(token: str) -> tuple[int, Key]:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(token))
        namespace, name = decoded["start"]
        return int(decoded["rv"]), (str(namespace), str(name))
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from None


def list_document(kind: Kind, page: Page) -> bytes:
    """The list as JSON, put together from the stored bytes."""
    head = {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": page.metadata}
    opened = json.dumps(head, separators=(",", ":")).encode().removesuffix(b"}")
    return opened + b',"items":[' + b",".join(raw_as(kind, entry) for entry in page.entries) + b"]}"
