"""``pods/<name>/log``: where the API server gets the output of containers from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class PodLogs(Protocol):
    """Who keeps the output of the containers: the kubelet. An empty container name means the first one.

    Both raise ApiError when pod or container are unknown, ``follow_log`` at the first step of the iterator. A real
    server also refuses a container that has not started, and no name where there are several containers.
    """

    def read_log(
        self,
        namespace: str,
        pod_name: str,
        container: str = "",
        *,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        previous: bool = False,
    ) -> bytes: ...

    def follow_log(
        self, namespace: str, pod_name: str, container: str = "", *, tail_lines: int | None = None
    ) -> AsyncIterator[bytes]: ...
