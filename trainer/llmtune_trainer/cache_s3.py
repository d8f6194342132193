"""A cache in S3 (`--cache_dir s3://bucket/prefix`): nodes without a common volume share what one of them made.

    <prefix>/<kind>/<digest>/manifest.json       names the folder of files that belongs to it; written last
    <prefix>/<kind>/<digest>/<writer>/...        each writer's own, so that two of them cannot mix
    <prefix>/<kind>/<digest>/building            see lease.py
    <prefix>/<kind>/<digest>/used                see eviction_s3.py

Of simultaneous first users one builds while the others wait. Where two do, the first manifest wins (`If-None-Match`; a
store that does not know it keeps the last, which is as good). A reader whose entry goes away builds it itself.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmtune_trainer.cache_entry import MANIFEST, DamagedError, Entry
from llmtune_trainer.errors import TrainerError
from llmtune_trainer.eviction import alone_too_large, told_gone
from llmtune_trainer.eviction_s3 import MARK, MARK_SECONDS, evict_in_s3
from llmtune_trainer.lease import Lease
from llmtune_trainer.object_store import (
    Content,
    delete_folder,
    download,
    list_objects,
    read_object,
    upload_folder,
    write_object,
)

FLAG = "--cache_dir"
POLL_SECONDS = 2.0


class CacheInS3:
    def __init__(self, address: str, say: Callable[[str], None], max_bytes: int | None = None) -> None:
        self._address = address.rstrip("/")
        self._say = say
        self._max_bytes = max_bytes
        self._leases: dict[Path, Lease] = {}

    def fetch(self, entry: Entry, folder: Path) -> Mapping[str, str] | None:
        """Fill the folder and return the sha256 of its files; None: there is no entry, and this run is to build it."""
        lease, waits = Lease(self._place(entry)), False
        while (found := read_object(FLAG, f"{self._place(entry)}/{MANIFEST}")) is None:
            if entry.folder in self._leases:
                return None
            if lease.try_to_take():
                self._leases[entry.folder] = lease  # and look once more: its last holder may just have finished
            else:
                if not waits:
                    self._say(f"cache: {entry.name} is being made by another run; waiting for it")
                waits = True
                time.sleep(POLL_SECONDS)
        self._mark_as_used(entry, found)
        return self._download(entry, found.text, folder)

    def release(self, entry: Entry) -> None:
        """Let others build it, if need be."""
        if lease := self._leases.pop(entry.folder, None):
            lease.release()

    def _mark_as_used(self, entry: Entry, manifest: Content) -> None:
        if manifest.age < MARK_SECONDS:
            return
        with suppress(TrainerError):  # who may not write here only has it go earlier
            mark = read_object(FLAG, f"{self._place(entry)}/{MARK}")
            if mark is None or mark.age >= MARK_SECONDS:
                write_object(FLAG, f"{self._place(entry)}/{MARK}", "")

    def _download(self, entry: Entry, text: str, folder: Path) -> Mapping[str, str]:
        try:
            manifest: dict[str, Any] = json.loads(text)
            known = {name: str(file["sha256"]) for name, file in manifest["files"].items()}
            address = f"{self._place(entry)}/{manifest['writer']}"
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{entry.name} in {self._address} has no readable {MANIFEST}.") from error
        try:
            objects = {obj.name: obj for obj in list_objects(FLAG, address)} if known else {}
            lost = sorted(known.keys() - objects.keys())
            if not lost:
                download(FLAG, address, [objects[name] for name in known], folder)
        except TrainerError as error:
            raise DamagedError(f"{entry.name} in {self._address} cannot be read: {error}") from error
        if lost:
            raise DamagedError(f"{entry.name} in {self._address} has lost {', '.join(lost)}.")
        return known

    def store(self, entry: Entry, *, replace: bool) -> None:
        """Upload what was just built. A run does not fail because it could not share."""
        writer = uuid.uuid4().hex
        address = f"{self._place(entry)}/{writer}"
        try:
            upload_folder(FLAG, entry.files, address)
            text = json.dumps({**(entry.read_manifest() or {}), "writer": writer}, indent=1)
            if write_object(FLAG, f"{self._place(entry)}/{MANIFEST}", text, only_first=not replace) is None:
                delete_folder(FLAG, address, "")  # another run was faster
        except TrainerError as error:
            self._say(f"cache: {entry.name} could not be stored for other runs: {error}")
            return
        if self._max_bytes is not None:
            self._evict(entry, self._max_bytes)

    def _evict(self, stored: Entry, max_bytes: int) -> None:
        if stored.bytes() > max_bytes:
            self._say(alone_too_large(stored.name, max_bytes))
        try:
            for name, size in evict_in_s3(self._address, max_bytes):
                self._say(told_gone(name, size))
        except TrainerError as error:
            self._say(f"cache: it could not be brought within --cache_max_bytes: {error}")

    def read_note(self, name: str) -> str | None:
        found = read_object(FLAG, f"{self._address}/{name}")
        return None if found is None else found.text

    def write_note(self, name: str, text: str) -> None:
        try:
            write_object(FLAG, f"{self._address}/{name}", text)
        except TrainerError as error:
            self._say(f"cache: a note could not be stored for other runs: {error}")

    def _place(self, entry: Entry) -> str:
        return f"{self._address}/{entry.name}"
