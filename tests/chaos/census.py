"""Counts every Experiment that there ever was, also those that are gone, whatever becomes of the API server."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Self

import httpx

from airflow_llmtune.resources.meta import IDENTITY_LABEL

EXPERIMENTS = "/apis/kubeflow.org/v1beta1/experiments"
PAUSE = 0.2
# Longer than the API server is held up by any fault; the watch goes on where it was.
SILENCE = httpx.Timeout(10, read=60)

JSON = dict[str, Any]


class Census:
    """A watch in a thread of its own. It goes on from the last change that it saw, so none escapes it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._seen: dict[str, JSON] = {}
        self._version = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def created(self, identity: str) -> list[JSON]:
        """Return all Experiments that a task instance has ever had, each as it was last."""
        return [
            one
            for one in list(self._seen.values())
            if (one["metadata"].get("labels") or {}).get(IDENTITY_LABEL) == identity
        ]

    def _watch_until_stopped(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch()
            except httpx.HTTPStatusError:
                self._version = ""  # too old for it, or of data that it has lost
            except httpx.HTTPError:
                time.sleep(PAUSE)

    def _watch(self) -> None:
        if not self._version:
            self._list()
        query = {"watch": "true", "resourceVersion": self._version, "allowWatchBookmarks": "true"}
        with self._http.stream("GET", EXPERIMENTS, params=query, timeout=SILENCE) as stream:
            stream.raise_for_status()
            for line in stream.iter_lines():
                if self._stopped.is_set():
                    return
                self._take(json.loads(line))

    def _list(self) -> None:
        found = self._http.get(EXPERIMENTS).raise_for_status().json()
        self._seen |= {one["metadata"]["uid"]: one for one in found["items"]}
        self._version = found["metadata"]["resourceVersion"]

    def _take(self, event: JSON) -> None:
        if event["type"] == "ERROR":
            self._version = ""
            return
        metadata = event["object"]["metadata"]
        self._version = metadata["resourceVersion"]
        if event["type"] != "BOOKMARK":
            self._seen[metadata["uid"]] = event["object"]
