"""Over a real channel; the control plane's messages, which are made of Katib's definitions, read what was sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from airflow_llmtune.controlplane.grpc_services.messages import ReportObservationLogRequest
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.katib_push import METHOD, Push, encoded

STAMP = "2026-11-22T09:00:00.123456Z"


def told(message: bytes) -> tuple[str, list[tuple[str, str, str]]]:
    request = ReportObservationLogRequest.FromString(message)
    logs = request.observation_log.metric_logs
    return request.trial_name, [(log.time_stamp, log.metric.name, log.metric.value) for log in logs]


class Server:
    """Takes reports on a port of its own."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self._server: Any = None

    def start(self, port: int = 0) -> int:
        def take(message: bytes, _: Any) -> bytes:
            self.taken.append(message)
            return b""

        service, _, method = METHOD[1:].partition("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(take)}
        self._server = grpc.server(ThreadPoolExecutor(2), [grpc.method_handlers_generic_handler(service, handlers)])
        bound: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()
        return bound

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.mark.parametrize("length", [1, 127, 128, 300, 20_000])
def test_the_message_is_what_katib_reads(length: int) -> None:
    trial, name = "t" * length, "eval_loss_" + "é" * length
    assert told(encoded(trial, name, "2.9031234567", STAMP)) == (trial, [(STAMP, name, "2.9031234567")])


def test_all_that_was_reported_has_arrived_in_order_at_the_end(server: Server) -> None:
    environ = {"KATIB_TRIAL_NAME": "tune-1-x7k2", "KATIB_DB_MANAGER": f"127.0.0.1:{server.start()}"}
    values = [1.0, 0.1 + 0.2, 1e-9, 1e9]
    with Push.open(environ) as push:
        for value in values:
            push.report("eval_loss", value, STAMP)
    expected = [("tune-1-x7k2", [(STAMP, "eval_loss", repr(value))]) for value in values]
    assert [told(message) for message in server.taken] == expected


def test_a_manager_that_comes_up_late_is_waited_for(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    push = Push(f"127.0.0.1:{port}", "trial", seconds=30)
    push.report("eval_loss", 1.0, STAMP)
    begun = threading.Timer(0.3, server.start, [port])
    begun.start()
    push.deliver()
    begun.join()
    push.close()
    assert len(server.taken) == 1


def test_a_report_that_never_arrives_fails_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    push = Push(address, "trial", seconds=0.2)
    push.report("eval_loss", 1.0, STAMP)
    with pytest.raises(TrainerError, match=rf"{address} did not take a metric .*KATIB_DB_MANAGER names another"):
        push.deliver()
    push.close()


def test_an_error_of_the_run_does_not_wait_for_its_reports() -> None:
    def run() -> None:
        with Push.open({"KATIB_TRIAL_NAME": "trial", "KATIB_DB_MANAGER": "127.0.0.1:9"}) as push:
            push.report("eval_loss", 1.0, STAMP)
            while push._channel is None:
                time.sleep(0.01)
            raise ValueError("boom")

    begin = time.monotonic()
    with pytest.raises(ValueError, match="boom"):
        run()
    assert time.monotonic() - begin < 60


def test_who_is_no_trial_is_told_so() -> None:
    with pytest.raises(BadInputError, match="no KATIB_TRIAL_NAME"), Push.open({}):
        pass
