"""What makes a kubeconfig stay valid: the lock, the token, the certificate and the port of a state directory."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.state.directory import LOCK_FILE, locked, temporary
from airflow_llmtune.controlplane.state.errors import StateError
from airflow_llmtune.controlplane.state.identity import FILE, keep_identity, kept_identity, new_identity

HOST = "127.0.0.1"


def now(days: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_it_is_kept_for_the_owner_only_and_read_back_as_it_was(tmp_path: Path) -> None:
    assert kept_identity(tmp_path, HOST, now()) is None
    identity = replace(new_identity(HOST), port=1234, gateway_port=1235)
    keep_identity(tmp_path, identity)
    assert kept_identity(tmp_path, HOST, now()) == identity
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("host", "days", "is_renewed"),
    [
        (HOST, 330, False),
        (HOST, 340, True),
        (HOST, 4000, True),
        ("localhost", 0, False),
        ("::1", 0, False),
        ("127.0.0.9", 0, True),
    ],
)
def test_a_certificate_near_its_end_or_for_another_host_is_renewed_and_the_token_stays(
    tmp_path: Path, host: str, days: int, is_renewed: bool
) -> None:
    identity = new_identity(HOST)
    keep_identity(tmp_path, identity)
    found = kept_identity(tmp_path, host, now(days))
    assert found is not None
    assert (found.certificate != identity.certificate) == is_renewed
    assert found.token == identity.token


def test_one_of_before_there_was_a_gateway_is_read(tmp_path: Path) -> None:
    identity = replace(new_identity(HOST), port=1234)
    keep_identity(tmp_path, identity)
    fields = json.loads((tmp_path / FILE).read_text())
    del fields["gatewayPort"]
    (tmp_path / FILE).write_text(json.dumps(fields))
    assert kept_identity(tmp_path, HOST, now()) == identity


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": "x"}', '{"token": "x", "port": 1, "certificate": {}}'])
def test_one_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(StateError, match=r"identity\.json: .*; remove it to get a new token and certificate"):
        kept_identity(tmp_path, HOST, now())


def test_a_folder_is_held_by_one_at_a_time_and_let_go_of(tmp_path: Path) -> None:
    told = rf"in use by another control plane \(process {os.getpid()}\), and two may not share one: stop that one"
    with locked(tmp_path), pytest.raises(StateError, match=told), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_temporary_folder_goes_with_those_of_control_planes_that_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, young, durable = (tmp_path / f"llmtune-{name}" for name in ("left", "young", "durable"))
    for folder, lock in ((left, "temporary.lock"), (young, "temporary.lock"), (durable, LOCK_FILE)):
        folder.mkdir()
        (folder / lock).touch()
        (folder / "file").touch()
    with temporary() as used:
        for lock in tmp_path.glob("*/*.lock"):
            if lock.parent != young:
                os.utime(lock, (0, 0))
        with temporary():
            assert used.exists()
    assert sorted(tmp_path.iterdir()) == [durable, young]


def test_a_killed_process_lets_go_of_its_folder_though_its_child_lives_on(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, pathlib\n"
        "from airflow_llmtune.controlplane.state.directory import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n"
        "    child = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(StateError, match=f"process {holder.pid}"), locked(tmp_path):
                pass
            holder.kill()
            holder.wait()
            with locked(tmp_path):
                os.kill(child, 0)
        finally:
            os.kill(child, 9)
