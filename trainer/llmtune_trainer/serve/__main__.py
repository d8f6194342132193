"""``python -m llmtune_trainer.serve --model_dir MODEL --model_name NAME [--enable-lora --lora-modules tuned=ADAPTER]``.

Exit code 0: stopped by a signal, with the requests in flight answered. 2: a flag is wrong. 1: the model, an adapter
or the address cannot be served. Nothing listens before everything is loaded.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from llmtune_trainer.errors import TrainerError
from llmtune_trainer.result import TERMINATION_LIMIT, TERMINATION_LOG
from llmtune_trainer.serve.errors import LoadError
from llmtune_trainer.serve.flags import ServeSettings, parse_flags, usage
from llmtune_trainer.serve.folders import adapter_config, model_folder

# Read by the libraries when they are imported. Threads that spin while they wait would starve the other servers.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# Between the signal and the last request, whoever sends requests learns that this server is no longer to be asked.
LINGER_S = 1.0
# Longer than clients and proxies keep an idle connection, so that none is closed just as a request is sent.
KEEP_ALIVE_S = 75


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(usage())
        return 0
    try:
        serve(parse_flags(arguments, environ))
    except TrainerError as error:
        _report(f"error: {error}", environ)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last resort of a process: say what happened, exit non-zero
        traceback.print_exc()
        _report(f"error: {type(error).__name__}: {error}", environ)
        return 1
    return 0


def serve(settings: ServeSettings) -> None:
    started = time.monotonic()
    if not settings.from_hub:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if settings.without_effect:
        _log(f"without effect here: {', '.join(f'--{name}' for name in settings.without_effect)}")
    with _bound(settings.host, settings.port) as listener:
        folder = model_folder(settings)
        adapters = [adapter_config(module, settings.max_lora_rank) for module in settings.lora_modules]
        # Some seconds and half a gigabyte, which a wrong flag, path or adapter has not cost.
        from llmtune_trainer.serve.app import build_app
        from llmtune_trainer.serve.engine import Engine
        from llmtune_trainer.serve.served import load

        served = load(settings, folder, adapters)
        app = build_app(Engine(served, _log), settings.api_key)
        listener.listen()
        _log(f"loaded {', '.join(served.cards)} in {time.monotonic() - started:.1f} s")
        host, port = listener.getsockname()[:2]
        _log(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        _run(app, listener)


def _run(app: Any, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: Any) -> None:
            later = threading.Timer(0 if self.should_exit else LINGER_S, super().handle_exit, (sig, frame))
            later.daemon = True
            later.start()

    server = Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_S)
    )
    # uvicorn sets its own handlers, and after its end raises the signal again for those that were there before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """Take the address at once, but refuse connections until there is something to answer."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            on_failure.pop_all()
    except OSError as error:
        raise LoadError(
            f"`--host`={host!r} `--port`={port} cannot be listened at: {error.strerror or error}. "
            "Fix: give an address of this machine and a free port; --port=0 picks one."
        ) from error
    return listener


def _report(message: str, environ: Mapping[str, str]) -> None:
    """Say it where people look, and where KServe takes an InferenceService's lastFailureInfo from."""
    print(message, file=sys.stderr)
    named = environ.get("LLMTUNE_TERMINATION_LOG")
    if named or os.access(TERMINATION_LOG, os.W_OK):
        with open(named or TERMINATION_LOG, "wb") as log:  # noqa: PTH123  also a device
            log.write(message.encode()[:TERMINATION_LIMIT])


def _log(line: str) -> None:
    # A full disk or a reader that is gone is no reason not to answer.
    with suppress(OSError):
        print(line, flush=True)


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def entry() -> NoReturn:
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = main(sys.argv[1:], os.environ)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Taking torch apart takes another second, and nothing is left to do.
    os._exit(code)


if __name__ == "__main__":
    entry()
