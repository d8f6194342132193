"""Where the Experiments of an event run: a control plane in this process, which can misbehave, or a program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from held_jobs import new_namespace
from program import Program
from tests.chaos.census import Census

__all__ = ["Place", "Places"]


@dataclass
class Place:
    """
    A namespace that one event has for itself.

    :param runs: the control plane.
    """

    kubeconfig: Path
    namespace: str
    http: httpx.Client
    census: Census
    runs: ControlPlane | Program

    @property
    def plane(self) -> ControlPlane:
        assert isinstance(self.runs, ControlPlane)
        return self.runs

    @property
    def program(self) -> Program:
        assert isinstance(self.runs, Program)
        return self.runs

    def rotate_token(self) -> None:
        """Let the token expire, and write the next one to the kubeconfig, as whoever renews it does."""
        self.plane.rotate_token()
        self.plane.write_kubeconfig(self.kubeconfig)
        self.http.headers["authorization"] = f"Bearer {self.plane.token}"


class Places:
    """One control plane that all events share, and one each for those that spoil theirs; leaving it ends all."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stack = ExitStack()
        self._shared = self._stack.enter_context(_running(home))

    def close(self) -> None:
        self._stack.close()

    def shared(self) -> Place:
        return replace(self._shared, namespace=new_namespace(self._shared.plane))

    @contextmanager
    def own(self, name: str) -> Iterator[Place]:
        with _running(self._home / name) as place:
            yield place

    @contextmanager
    def own_program(self, name: str) -> Iterator[Place]:
        folder = self._home / name
        folder.mkdir()
        program = Program(folder)
        try:
            with Census(program.http) as census:
                yield Place(program.kubeconfig, "default", program.http, census, program)
        finally:
            program.close()


@contextmanager
def _running(folder: Path) -> Iterator[Place]:
    folder.mkdir(exist_ok=True)
    with (
        ControlPlane(images={"busybox": Path("/usr")}) as plane,
        http_client(plane.kubeconfig) as http,
        Census(http) as census,
    ):
        plane.write_kubeconfig(folder / "kubeconfig")
        yield Place(folder / "kubeconfig", "default", http, census, plane)
