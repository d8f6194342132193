"""A loopback stand-in of the Hugging Face Hub: the part of its API by which repositories are read.

Commits, trees, files with ETags and ranges, large files behind a redirect, and the Hub's words for what is private,
gated or unknown. Nothing is written through it; tests put repositories into it directly.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?")
FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
LARGE = ("*.safetensors", "*.bin", "*.parquet")


@dataclass
class Repository:
    revisions: dict[str, str] = field(default_factory=dict)  # name -> commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str | None = None  # whoever lacks it cannot see the repository
    gated: bool = False  # seen by all, read by nobody

    def commit(self, files: Mapping[str, bytes], revision: str = "main") -> str:
        listing = "".join(f"{name} {hashlib.sha1(content).hexdigest()}\n" for name, content in sorted(files.items()))
        commit = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.revisions[revision] = commit
        return commit

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


class RefusedError(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class Hub:
    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []  # method and path
        self.ranges: list[str] = []  # of those that asked for a part
        self.refused_tokens: set[str] = set()
        self.refused_files: set[str] = set()
        self.breaks_off: dict[str, int] = {}  # file -> bytes after which its first download breaks off
        self.damages: dict[str, int] = {}  # file -> how many of its downloads have other bytes of the same number
        self.url = ""
        self._lock = threading.Lock()

    def model(self, name: str, files: Mapping[str, bytes]) -> Repository:
        return self._add("models", name, files)

    def dataset(self, name: str, files: Mapping[str, bytes]) -> Repository:
        return self._add("datasets", name, files)

    def downloads(self) -> list[str]:
        """Return the files that were sent, in order."""
        with self._lock:
            asked = [request.split() for request in self.requests]
        sent = [path for method, path in asked if method == "GET" and ("?large" in path or not _large(path))]
        paths = [unquote(urlsplit(path).path) for path in sent]
        return [path.split("/resolve/")[1].partition("/")[2] for path in paths if "/resolve/" in path]

    def _add(self, kind: str, name: str, files: Mapping[str, bytes]) -> Repository:
        repository = self.repositories[kind, name] = Repository()
        repository.commit(files)
        return repository

    def note(self, request: str) -> None:
        with self._lock:
            self.requests.append(request)

    def take(self, counts: dict[str, int], name: str) -> int:
        with self._lock:
            return counts.pop(name, 0)

    def harm(self, name: str, content: bytes) -> bytes:
        with self._lock:
            self.damages[name] = self.damages.get(name, 0) - 1
            return bytes(len(content)) if self.damages[name] >= 0 else content


def _large(path: str) -> bool:
    return urlsplit(path).path.endswith(tuple(pattern[1:] for pattern in LARGE))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self.hub.note(f"{self.command} {self.path}")
        try:
            if found := API.fullmatch(unquote(urlsplit(self.path).path)):
                self._answer_api(*found.groups())
            elif found := FILE.fullmatch(unquote(urlsplit(self.path).path)):
                self._answer_file(*found.groups())
            else:
                raise RefusedError(404, None, "no such page")
        except RefusedError as refused:
            self._send(
                refused.status,
                json.dumps({"error": refused.message}).encode(),
                {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {}),
            )

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer_api(self, kind: str, name: str, what: str | None, revision: str | None) -> None:
        repository = self._repository(kind, name)
        commit = self._commit(repository, revision or "main")
        if what != "tree":
            self._send_json({"id": name, "sha": commit, "siblings": []})
            return
        files = repository.commits[commit]
        self._send_json([_listed(path, content) for path, content in sorted(files.items())])

    def _answer_file(self, kind: str | None, name: str, revision: str, path: str) -> None:
        repository = self._repository(kind or "models", name)
        if repository.gated:
            raise RefusedError(403, "GatedRepo", f"Access to {name} is restricted.")
        if path in self.hub.refused_files:
            raise RefusedError(403, None, f"{path} may not be read.")
        commit = self._commit(repository, revision)
        content = repository.commits[commit].get(path)
        if content is None:
            raise RefusedError(404, "EntryNotFound", f"{path} does not exist.")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(path, content)}"'}
        if _large(path) and "?large" not in self.path:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": headers["ETag"]}
            self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.url}{self.path}?large"})
            return
        self._send_content(path, content, headers)

    def _send_content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            self.hub.ranges.append(wanted[0])
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        if self.command == "GET":
            content = self.hub.harm(path, content)
            if sent := self.hub.take(self.hub.breaks_off, path):
                self._send(status, content, headers, sent)
                self.close_connection = True
                return
        self._send(status, content, {**headers, "Accept-Ranges": "bytes"})

    def _repository(self, kind: str, name: str) -> Repository:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.hub.refused_tokens:
            raise RefusedError(401, None, "Invalid credentials in Authorization header")
        repository = self.hub.repositories.get((kind, name))
        if repository is None or repository.token not in {None, token}:
            # The Hub does not tell which of the two, to whom it does not know.
            raise RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.find(revision)
        if commit is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])

    def log_message(self, *_: object) -> None:
        pass


def _etag(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _large(path) else _blob(content)


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "oid": _blob(content), "size": len(content)}
    if _large(path):
        entry["lfs"] = {"oid": _etag(path, content), "size": len(content), "pointerSize": 134}
    return entry


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
