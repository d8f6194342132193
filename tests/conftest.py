"""A private Airflow home for every test process; nothing of the developer's own Airflow is read or written."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports Airflow, which reads its configuration when it is imported.
_HOME = Path(tempfile.mkdtemp(prefix="llmtune-airflow-"))
os.environ |= {
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME / 'airflow.db'}",
    "NO_PROXY": "127.0.0.1,localhost",
}


@pytest.fixture(scope="session", autouse=True)
def _ends_tls_with_its_loop() -> Iterator[None]:
    """
    Cut the connections that a loop is still taking leave of when it is closed.

    aiohttp ends TLS politely where a request is cancelled on its way, and forgets the connection. A triggerer's loop
    lives on until the peer has answered; that of a test does not, and a later test would be told of an open socket.
    """
    close = asyncio.SelectorEventLoop.close

    def tidy_close(loop: asyncio.SelectorEventLoop) -> None:
        if not loop.is_closed():
            for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
                protocol = transport.get_protocol()
                if isinstance(protocol, SSLProtocol) and getattr(protocol._app_transport, "_closed", False):  # type: ignore[attr-defined]
                    transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
        close(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "close", tidy_close)
        yield


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_HOME, ignore_errors=True)
