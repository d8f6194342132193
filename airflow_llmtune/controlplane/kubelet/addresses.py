"""The addresses of pods. Those of a ReplicaSet listen on the same port: each gets a loopback address of its own.

A pod that is to be reached there must listen on it (``status.podIP``) and not on all addresses, as a process of the
host takes the port of all of them. Every other pod has the host's own address.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK

Object = dict[str, Any]

_TRIES = 20
_OWN_KIND = "ReplicaSet"


class Addresses:
    """Other control planes on this machine choose theirs too: chance keeps them apart, and what is taken shows."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._taken: dict[str, str] = {}
        """By the pod's uid."""

    def given(self, pod: Object) -> Object:
        """The pod with its address in its status; one that an earlier kubelet gave it stays."""
        if not has_own_address(pod):
            return pod
        status = pod.get("status") or {}
        address = status.get("podIP") or self._free(declared_ports(pod))
        self._taken[pod["metadata"]["uid"]] = address
        return {**pod, "status": {**status, "podIP": address}}

    def release(self, uid: str) -> None:
        self._taken.pop(uid, None)

    def _free(self, ports: Iterable[int]) -> str:
        """One without the ports free at last, whose container then says so itself."""
        address = LOOPBACK
        for _ in range(_TRIES):
            candidate = self._candidate()
            if not can_bind(candidate, (0,)):
                return LOOPBACK  # Most systems but Linux know a single loopback address.
            if candidate not in self._taken.values():
                address = candidate
                if can_bind(candidate, ports):
                    break
        return address

    def _candidate(self) -> str:
        """None of 127.0.0.0/16, where the host's own services are."""
        second, third, last = (self._random.randint(low, high) for low, high in ((1, 255), (0, 255), (1, 254)))
        return f"127.{second}.{third}.{last}"


def has_own_address(pod: Mapping[str, Any]) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(one["kind"] == _OWN_KIND and one.get("controller") for one in owners)


def declared_ports(pod: Mapping[str, Any]) -> list[int]:
    containers = pod["spec"]["containers"]
    return [port["containerPort"] for container in containers for port in container.get("ports") or ()]


def can_bind(address: str, ports: Iterable[int]) -> bool:
    """Whether a server could listen there; 0 asks for the address alone. A privileged port says nothing."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address, port))
            except PermissionError:
                continue
            except OSError as error:
                if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}:
                    return False
                raise
    return True
