"""One entry of a cache: a folder with a manifest of what is in it, which is there completely or not at all.

    <cache>/<kind>/<digest of the key>/
        use.lock  build.lock             see cache.py
        unfinished/files/...             being built, or left by a builder that died
        complete/manifest.json           size, sha256 and time of each file, and the key for people
        complete/files/...               what users get

``unfinished`` becomes ``complete`` by one renaming, when all of it and the manifest are on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtune_trainer.errors import TrainerError

MANIFEST = "manifest.json"
# Part of every key: entries of another layout are not looked at.
FORMAT = 1
ABSENT = "is not there"
BROKEN = "broken-"


class DamagedError(TrainerError):
    """Files are not what their source says they are."""


@dataclass(frozen=True)
class Entry:
    folder: Path
    kind: str
    key: Mapping[str, Any]

    @classmethod
    def of(cls, root: Path, kind: str, key: Mapping[str, Any]) -> Entry:
        text = json.dumps({"format": FORMAT, "kind": kind, "key": key}, sort_keys=True)
        return cls(root / kind / hashlib.sha256(text.encode()).hexdigest()[:32], kind, key)

    @classmethod
    def at(cls, folder: Path) -> Entry:
        """Return the entry of a folder that was found, whose key is not asked for."""
        return cls(folder, folder.parent.name, {})

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.folder.name}"

    @property
    def files(self) -> Path:
        return self.folder / "complete" / "files"

    @property
    def unfinished(self) -> Path:
        return self.folder / "unfinished"

    @property
    def use_lock(self) -> Path:
        return self.folder / "use.lock"

    @property
    def build_lock(self) -> Path:
        return self.folder / "build.lock"

    def start(self) -> Path:
        """Return the folder to fill, with what a predecessor left."""
        filled = self.unfinished / "files"
        filled.mkdir(parents=True, exist_ok=True)
        return filled

    def finish(self, known: Mapping[str, str]) -> None:
        """Make what was filled in the entry; ``known``: the sha256 of files as their source gives it."""
        filled = self.unfinished / "files"
        files = describe(filled)
        damaged = [name for name, digest in known.items() if name in files and files[name]["sha256"] != digest]
        if damaged:
            for name in damaged:
                (filled / name).unlink()
            raise DamagedError(
                f"{', '.join(damaged)} of {self.name} came with another sha256 than the source gives. "
                "Fix: run it again; when it stays so, the source itself is damaged."
            )
        manifest = {"key": dict(self.key), "bytes": sum(file["size"] for file in files.values()), "files": files}
        write_text(self.unfinished / MANIFEST, json.dumps(manifest, indent=1))
        for folder in (*(path for path in filled.rglob("*") if path.is_dir()), filled, self.unfinished):
            _sync(folder)
        self.unfinished.rename(self.files.parent)
        _sync(self.folder)

    def problem(self) -> str | None:
        """Say what is wrong with the entry; files whose time is no longer the one noted are read again."""
        if not self.files.parent.is_dir():
            return ABSENT
        manifest = self.read_manifest()
        if manifest is None:
            return f"has no readable {MANIFEST}"
        moved = {}
        for name, noted in manifest["files"].items():
            try:
                status = (self.files / name).stat()
            except OSError:
                return f"has lost {name}"
            if status.st_size != noted["size"]:
                return f"has {status.st_size} of {noted['size']} bytes of {name}"
            if status.st_mtime_ns != noted["mtime_ns"]:
                moved[name] = status.st_mtime_ns
        return self._problem_of_content(manifest, moved)

    def read_manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.files.parent / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None

    def move_away(self) -> Path:
        aside = self.folder / f"{BROKEN}{uuid.uuid4().hex[:8]}"
        self.files.parent.rename(aside)
        return aside

    def bytes(self) -> int:
        """Return what it takes on the disk, finished or not."""
        manifest = self.read_manifest()
        finished = int(manifest["bytes"]) if manifest else 0
        return finished + sum(size_of(path) for path in self.leftovers())

    def leftovers(self) -> list[Path]:
        return [path for path in (self.unfinished, *self.folder.glob(f"{BROKEN}*")) if path.is_dir()]

    def last_used(self) -> float:
        try:
            return self.use_lock.stat().st_mtime
        except OSError:
            return 0.0

    def _problem_of_content(self, manifest: dict[str, Any], moved: Mapping[str, int]) -> str | None:
        for name, time in moved.items():
            if sha256_of(self.files / name) != manifest["files"][name]["sha256"]:
                return f"has a {name} that is not the one that was stored (sha256)"
            manifest["files"][name]["mtime_ns"] = time
        if moved:
            with suppress(OSError):  # a cache that may only be read: the next user reads them again
                write_text(self.files.parent / MANIFEST, json.dumps(manifest, indent=1))
        return None


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size, sha256 and time of each file below, and have all of it on the disk."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with ThreadPoolExecutor(max_workers=4) as pool:
        names = (file.relative_to(folder).as_posix() for file in files)
        return dict(zip(names, pool.map(_describe, files), strict=True))


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    return sum(status.st_size for status in _statuses(folder))


def write_text(file: Path, text: str) -> None:
    """Replace the file as a whole, so that nobody reads half of it."""
    beside = file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("w", encoding="utf-8") as content:
            content.write(text)
            content.flush()
            os.fsync(content.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _describe(file: Path) -> dict[str, Any]:
    digest = sha256_of(file)
    _sync(file)
    status = file.stat()
    return {"size": status.st_size, "sha256": digest, "mtime_ns": status.st_mtime_ns}


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """What goes meanwhile, whole folders too, is not counted."""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield Path(place, name).lstat()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
