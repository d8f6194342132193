"""What the SDK's ``report_metrics`` does, without the SDK: one gRPC call to Katib's DB manager.

``python push_metric.py ADDRESS``, in a trial's container. The messages are written by hand, since their generated
classes come with the SDK: nested fields of texts, each with its number and its length in one byte.
"""

from __future__ import annotations

import os
import sys

import grpc

METHOD = "/api.v1.beta1.DBManager/ReportObservationLog"
_SECONDS = 10.0


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def report(trial: str, metric: str, value: str) -> bytes:
    log = field(1, b"2026-11-22T09:00:00Z") + field(2, field(1, metric.encode()) + field(2, value.encode()))
    return field(1, trial.encode()) + field(2, field(1, log))


def main(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(METHOD)(report(os.environ["KATIB_TRIAL_NAME"], "loss", "0.5"), timeout=_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
