"""A port for processes that meet on the loopback interface, which all pods share."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody listens on now; it may be taken before it is bound, as any port chosen ahead."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
