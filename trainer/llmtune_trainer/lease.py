"""Who builds an entry of a cache in S3, so that the nodes that start together do not all do the same work.

The lease is an object that its holder writes again and again. Others wait; when it stays the same for a minute by
their own clock, its holder is dead and one of them takes it over. It saves work and guards nothing: with a store that
knows no conditional writes each simply builds, and the first manifest wins all the same.
"""

from __future__ import annotations

import threading
import time
import uuid

from llmtune_trainer.errors import TrainerError
from llmtune_trainer.object_store import delete_objects, read_object, write_object

FLAG = "--cache_dir"
NAME = "building"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0


class Lease:
    def __init__(self, place: str) -> None:
        self._place = place
        self._address = f"{place}/{NAME}"
        self._etag: str | None = None  # of this holder's last beat
        self._seen = ("", 0.0)  # another's last beat, and since when it is the last
        self._released = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)

    def try_to_take(self) -> bool:
        try:
            self._etag = write_object(FLAG, self._address, _text(), only_first=True) or self._take_over()
        except TrainerError:
            return True  # who may not write here cannot agree with anybody
        if self._etag is None:
            return False
        self._beats.start()
        return True

    def release(self) -> None:
        self._released.set()
        if self._etag is None:
            return
        self._beats.join()
        try:
            if (found := read_object(FLAG, self._address)) is not None and found.etag == self._etag:
                delete_objects(FLAG, self._place, [NAME])
        except TrainerError:
            return  # it will be taken for that of a dead holder

    def _take_over(self) -> str | None:
        found = read_object(FLAG, self._address)
        if found is None:
            return None
        if found.etag != self._seen[0]:
            self._seen = (found.etag, time.monotonic())
        if time.monotonic() - self._seen[1] < PATIENCE_SECONDS:
            return None
        return write_object(FLAG, self._address, _text(), only_over=found.etag)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                etag = write_object(FLAG, self._address, _text(), only_over=self._etag)
            except TrainerError:
                continue  # the next beat may come through
            if etag is None:
                return  # taken over: this process was thought dead, and goes on for itself
            self._etag = etag


def _text() -> str:
    return uuid.uuid4().hex  # another one, so that each beat has another ETag
