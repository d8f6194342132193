"""Reports metrics straight to Katib's DB manager, for an Experiment whose collector is ``Push``: no sidecar reads logs.

It is one gRPC method of four nested messages, whose fields are texts. Katib's SDK has it too, and pins a protobuf that
nothing else of this trainer could live with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from llmtune_trainer.errors import BadInputError, TrainerError

TRIAL_NAME = "KATIB_TRIAL_NAME"
ADDRESS = "KATIB_DB_MANAGER"
DEFAULT_ADDRESS = "katib-db-manager.kubeflow:6789"
METHOD = "/api.v1.beta1.DBManager/ReportObservationLog"
# For so long a report waits for a DB manager that is being started again.
SECONDS = 120.0


class Push:
    """
    Reports one after another, in a thread: training does not wait for the network.

    :param address: ``host:port`` of the DB manager.
    :param trial: the Trial's name, as the pod is told it.
    """

    def __init__(self, address: str, trial: str, seconds: float = SECONDS) -> None:
        self._address, self._trial, self._seconds = address, trial, seconds
        self._thread = ThreadPoolExecutor(1, "katib-push")
        self._reports: list[Future[None]] = []
        self._channel: Any = None

    @classmethod
    @contextmanager
    def open(cls, environ: Mapping[str, str]) -> Iterator[Push]:
        """Yield it; all that was reported has arrived at the end, else TrainerError."""
        trial = environ.get(TRIAL_NAME)
        if not trial:
            raise BadInputError(
                f"`--metrics_push`=true, but no {TRIAL_NAME} tells the Trial. Fix: leave it out, or run as a trial of "
                "Katib 0.18 or later, which sets it."
            )
        push = cls(environ.get(ADDRESS) or DEFAULT_ADDRESS, trial)
        try:
            yield push
            push.deliver()
        finally:
            push.close()

    def report(self, name: str, value: float, time: str) -> None:
        """Report a finite value; ``time`` is RFC 3339."""
        self._reports.append(self._thread.submit(self._send, encoded(self._trial, name, repr(value), time)))

    def deliver(self) -> None:
        for report in self._reports:
            report.result()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._channel is not None:
            self._channel.close()  # which also ends a report on its way
        self._thread.shutdown()

    def _send(self, message: bytes) -> None:
        # Only runs that push pay for it.
        import grpc

        if self._channel is None:
            self._channel = grpc.insecure_channel(self._address)
        try:
            self._channel.unary_unary(METHOD)(message, timeout=self._seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            raise TrainerError(
                f"Katib's DB manager at {self._address} did not take a metric ({error.code().name}: "
                f"{error.details()}). Fix: check that it runs; {ADDRESS} names another address."
            ) from error


def encoded(trial: str, name: str, value: str, time: str) -> bytes:
    """A ReportObservationLogRequest of one metric."""
    metric_log = _field(1, time.encode()) + _field(2, _field(1, name.encode()) + _field(2, value.encode()))
    return _field(1, trial.encode()) + _field(2, _field(1, metric_log))


def _field(number: int, content: bytes) -> bytes:
    """A text or a message, as protobuf writes them: number and wire type, length, content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
