"""Parts of serving that need no server: the certificate, the listener, the kubeconfig file, the loop's thread."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from airflow_llmtune.controlplane.certificates import issue
from airflow_llmtune.controlplane.kubeconfig import write_private
from airflow_llmtune.controlplane.loop_thread import BackgroundTasks, LoopThread
from airflow_llmtune.controlplane.server import StartError, bind, check_loopback


def test_the_listener_names_its_protocol_so_that_answers_are_not_held_back() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_are_accepted(host: str) -> None:
    check_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_other_addresses_are_refused(host: str) -> None:
    with pytest.raises(StartError, match="is not a loopback address"):
        check_loopback(host)


def test_the_certificate_is_signed_by_its_authority_for_this_machine_only() -> None:
    issued = issue("127.0.0.2")
    authority = x509.load_pem_x509_certificate(issued.authority)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {"localhost", "127.0.0.1", "127.0.0.2", "::1"}
    assert issue("localhost").authority != issued.authority


def test_a_private_file_replaces_a_readable_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_private_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_private(tmp_path / "folder", "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_the_loops_thread_runs_coroutines_and_plain_calls() -> None:
    thread = LoopThread("test")

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    assert thread.run(double(4)) == 8
    assert thread.call(threading.current_thread).name == "test"
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)
    thread.stop()


async def test_a_background_task_that_ends_is_reported_and_one_that_is_stopped_is_not() -> None:
    crashes: list[tuple[str, BaseException | None]] = []
    tasks = BackgroundTasks(lambda name, error: crashes.append((name, error)))

    async def fail() -> None:
        raise RuntimeError("broken")

    tasks.start("bad", fail)
    tasks.start("good", asyncio.Event().wait)
    await asyncio.sleep(0.01)
    await tasks.stop()
    assert [(name, str(error)) for name, error in crashes] == [("bad", "broken")]
