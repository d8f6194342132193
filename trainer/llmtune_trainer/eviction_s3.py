"""What leaves a cache in S3 that is bounded: the entries that were not used for longest, by the store's own clock.

Nobody sees who reads in a bucket. So who uses an entry leaves a mark beside it, at most once an hour. An entry is as
old as the newest object in its folder, and what was written or used of late stays, bound or not: somebody may still be
reading it. Who reads for longer than that makes it again.

The folder of a writer who died before the manifest named it goes after a day. Only what is named as in an entry goes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llmtune_trainer.cache_entry import MANIFEST
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.lease import NAME as LEASE
from llmtune_trainer.object_store import Object, delete_objects, list_objects, read_object

FLAG = "--cache_dir"
MARK = "used"
MARK_SECONDS = 3600.0
# A reader's mark may be an hour old when it begins.
GRACE_SECONDS = 2 * MARK_SECONDS
DEAD_SECONDS = 24 * 3600.0
OF_ENTRY = re.compile(rf"([a-z]+/[0-9a-f]{{32}})/(?:([0-9a-f]{{32}})/.+|{re.escape(MANIFEST)}|{LEASE}|{MARK})")


@dataclass
class Stored:
    """An entry, or what is there of one."""

    address: str
    name: str
    objects: list[Object] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(obj.size for obj in self.objects)

    @property
    def age(self) -> float:
        return min((obj.age for obj in self.objects), default=0.0)

    def delete(self, objects: list[Object]) -> None:
        """Delete the manifest before all others: nobody is to begin to read what is half gone."""
        delete_objects(FLAG, self.address, [obj.name for obj in objects], first=MANIFEST)
        self.objects = [obj for obj in self.objects if obj not in objects]

    def leftovers(self) -> list[Object]:
        """Return what dead writers left."""
        if not any(obj.name == f"{self.name}/{MANIFEST}" for obj in self.objects):
            return self.objects if self.age > DEAD_SECONDS else []
        writers = self._writers()
        old = {writer for writer, files in writers.items() if min(file.age for file in files) > DEAD_SECONDS}
        if len(writers) > 1 and old and (named := self._named_writer()) is not None:
            return [file for writer in old - {named} for file in writers[writer]]
        return []

    def _writers(self) -> dict[str, list[Object]]:
        found = defaultdict(list)
        for obj in self.objects:
            if (match := OF_ENTRY.fullmatch(obj.name)) and match[2]:
                found[match[2]].append(obj)
        return found

    def _named_writer(self) -> str | None:
        manifest = read_object(FLAG, f"{self.address}/{self.name}/{MANIFEST}")
        try:
            return None if manifest is None else str(json.loads(manifest.text)["writer"])
        except (ValueError, KeyError, TypeError):
            return None  # torn: who reads the entry next replaces it


def evict_in_s3(address: str, max_bytes: int) -> Iterator[tuple[str, int]]:
    """Remove until the cache is within its bound, and yield the names of the entries that went, with their sizes."""
    entries = _entries(address)
    for entry in entries:
        entry.delete(entry.leftovers())
    total = sum(entry.size for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.age, reverse=True):
        if total <= max_bytes or entry.age <= GRACE_SECONDS:
            continue
        # While others went, somebody may have begun to read this one.
        for now in _again(entry):
            if now.age > GRACE_SECONDS:
                size = now.size
                now.delete(now.objects)
                total -= size
                yield now.name, size


def _again(entry: Stored) -> list[Stored]:
    try:
        return _entries(entry.address, entry.name)
    except BadInputError:
        return []  # others remove, too


def _entries(address: str, below: str = "") -> list[Stored]:
    found: dict[str, Stored] = {}
    for obj in list_objects(FLAG, f"{address}/{below}".rstrip("/")):
        name = f"{below}/{obj.name}" if below else obj.name
        if match := OF_ENTRY.fullmatch(name):
            found.setdefault(match[1], Stored(address, match[1])).objects.append(replace(obj, name=name))
    return list(found.values())
