"""An HTTPS server on the control plane's stack that answers everything with the same small object."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.responses import Response

from airflow_llmtune.controlplane.certificates import issue
from airflow_llmtune.controlplane.kubeconfig import kubeconfig, write_private
from airflow_llmtune.controlplane.server import HttpsServer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.app import ApiServer

_HOST = "127.0.0.1"
_BODY = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'


class _Streams:
    def end_all(self) -> None:
        """It has none."""


class EmptyApi:
    streams = _Streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await Response(_BODY, media_type="application/json")(scope, receive, send)


async def serve(path: Path) -> None:
    certificate = issue(_HOST)
    server = HttpsServer(cast("ApiServer", EmptyApi()), _HOST, 0, certificate)
    port = await server.start()
    write_private(path, kubeconfig(f"https://{_HOST}:{port}", "none", certificate.authority, "default"))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--kubeconfig", type=Path, required=True)
    asyncio.run(serve(options.parse_args().kubeconfig))
