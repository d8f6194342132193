"""Looks for planted secrets wherever a run leaves something that more people can read than may know them."""

from __future__ import annotations

import base64
import json
import sqlite3
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import psutil

JSON = dict[str, Any]


def forms(secret: str) -> dict[str, bytes]:
    """How the secret looks as it is and encoded; in base64 also in the middle of a longer text."""
    plain = secret.encode()
    found = {
        "plain": plain,
        "in JSON": json.dumps(secret)[1:-1].encode(),
        "URL-encoded": quote(secret, safe="").encode(),
        "form-encoded": quote_plus(secret, safe="").encode(),
    }
    for shift in range(3):
        # The characters at both ends depend on what stands beside the secret.
        begin, end = -(-shift * 8 // 6), (shift + len(plain)) * 8 // 6
        for name, encode in (("base64", base64.b64encode), ("URL-safe base64", base64.urlsafe_b64encode)):
            found[f"{name}, shifted by {shift}"] = encode(bytes(shift) + plain)[begin:end]
    return found


@dataclass
class SecretScan:
    """
    Notes each place where one of the secrets stands.

    :param secrets: by the name under which a find tells them.
    """

    secrets: Mapping[str, str]
    finds: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)
    """How many bytes there were, by kind of place: a scan of nothing proves nothing."""

    def __post_init__(self) -> None:
        self._forms = [
            (name, form, text) for name, value in self.secrets.items() for form, text in forms(value).items()
        ]

    def look(self, kind: str, where: str, content: Any) -> None:
        """Look at text, bytes, an exception with its traceback, or whatever JSON can show."""
        data = _to_bytes(content)
        self.looked_at[kind] = self.looked_at.get(kind, 0) + len(data)
        self.finds += [f"{kind} {where}: {name} ({form})" for name, form, text in self._forms if text in data]

    # Where a run leaves something.

    def files(self, kind: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.look(kind, str(path.relative_to(folder)), path.read_bytes())

    def database(self, path: Path) -> None:
        """Look at every cell of every table; Airflow's connections are not in the table that may hold secrets."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                rows = database.execute(f'SELECT * FROM "{table}"')
                columns = [column for column, *_ in rows.description]
                for row in rows:
                    for column, cell in zip(columns, row, strict=True):
                        self.look("table", f"{table}.{column}", cell)

    def cluster(self, http: httpx.Client) -> None:
        """Look at all objects but Secrets, and at the logs of all pods."""
        for kind, obj in _objects(http):
            metadata = obj["metadata"]
            where = f"{kind}/{metadata.get('namespace', '')}/{metadata['name']}"
            self.look("object", where, obj)
            if kind == "pods":
                for container in [*obj["spec"].get("initContainers", ()), *obj["spec"]["containers"]]:
                    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
                    log = http.get(path, params={"container": container["name"]})
                    self.look("pod log", f"{where}/{container['name']}", log.content)

    def processes(self) -> None:
        """Look at what any user of the machine can see of its processes."""
        for process in psutil.process_iter(["cmdline"]):
            self.look("process", str(process.pid), " ".join(process.info["cmdline"] or ()))


def _objects(http: httpx.Client) -> Iterator[tuple[str, JSON]]:
    roots = ["/api/v1"]
    for group in _get(http, "/apis")["groups"]:
        roots += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    for root in roots:
        for resource in _get(http, root)["resources"]:
            name = resource["name"]
            if "list" in resource["verbs"] and "/" not in name and name != "secrets":
                yield from ((name, obj) for obj in _get(http, f"{root}/{name}")["items"])


def _get(http: httpx.Client, path: str) -> JSON:
    answer: JSON = http.get(path).raise_for_status().json()
    return answer


def _to_bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, BaseException):
        content = "".join(traceback.format_exception(content)) + repr(content)
    if not isinstance(content, str):
        content = json.dumps(content, default=repr)
    return content.encode(errors="replace")
