"""Where a store's writes go before they change anything in memory: to a journal that outlives it, or nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

KeptObject = tuple[str, str, str, int, bytes]
"""Resource, namespace, name, revision and text."""


class Journal(Protocol):
    """Where writes go first. It raises what the caller of the store is to see, and then has kept nothing."""

    def revision(self) -> int:
        """The largest number ever written, 0 when it is new."""

    def objects(self) -> Iterable[KeptObject]: ...

    def add(self, resource: str, key: Key, revision: int, body: bytes) -> None: ...

    def replace(self, previous: int, revision: int, body: bytes) -> None: ...

    def remove(self, previous: int, revision: int) -> None: ...


class NoJournal:
    """Of a store that ends with its process."""

    def revision(self) -> int:
        return 0

    def objects(self) -> Iterable[KeptObject]:
        return ()

    def add(self, resource: str, key: Key, revision: int, body: bytes) -> None: ...

    def replace(self, previous: int, revision: int, body: bytes) -> None: ...

    def remove(self, previous: int, revision: int) -> None: ...
