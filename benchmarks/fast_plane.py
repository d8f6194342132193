"""A control plane whose days are short: its clock runs ``--speed`` times as fast as this machine's."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_llmtune.controlplane import ControlPlane


class FastClock:
    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._begin = datetime.now(UTC)
        self._since = time.monotonic()

    def __call__(self) -> datetime:
        return self._begin + timedelta(seconds=(time.monotonic() - self._since) * self._speed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--speed", type=float, required=True)
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ControlPlane(state_dir=options.state_dir, clock=FastClock(options.speed)) as plane:
        plane.write_kubeconfig(options.kubeconfig)
        ended.wait()


if __name__ == "__main__":
    main()
