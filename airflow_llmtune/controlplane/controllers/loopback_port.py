"""Ports for processes that meet on the loopback interface, which all pods share."""

from __future__ import annotations

import itertools
import random
import socket

_PORTS = range(20_000, 32_000)
"""Below those that a machine gives to outgoing connections, which would take one before its pod has started."""

_turns = itertools.count(random.randrange(len(_PORTS)))  # noqa: S311 - no secret


def free_port() -> int:
    """One that nobody listens on now, and that no other job was told lately: its pods may still wait for the node."""
    return next(port for port in (_PORTS[next(_turns) % len(_PORTS)] for _ in _PORTS) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
