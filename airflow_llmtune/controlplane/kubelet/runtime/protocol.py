"""What the kubelet and the runtime say to each other: one JSON object per line."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What a runtime is started with."""

    mark: str
    """The first part of the mark of all its containers."""
    socket: str
    """In a folder of its own, which goes with the runtime."""
    record: str
    """The file that tells a later kubelet where the runtime is."""
    outage_seconds: float
    """How long containers run on when the kubelet is gone."""
    state_dir: str
    """A folder to remove when the kubelet vanishes; empty: none."""


@dataclass(frozen=True)
class ContainerSpec:
    """A container to start."""

    id: str
    """``<pod uid>/<container>/<restart>``."""
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str
    binds: list[list[str]] = field(default_factory=list)
    """Pairs of a path of the host and the path at which the container sees it."""
    memory_bytes: int = 0
    """0: no limit."""
    most_processes: int = 1024
    """As a node's limit of PIDs per pod. A look per second finds what grows; it does not tame a burst."""


def remove_socket(path: str) -> None:
    """With its folder, which has nothing else in it."""
    with contextlib.suppress(OSError):
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()


def encode(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    message: Message = json.loads(line)
    return message
