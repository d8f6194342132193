"""A program of Katib's own environment: its client, unmodified, waits for each Experiment in a thread, as its users do.

Prints one JSON line: CPU seconds since the threads were started, resident memory, threads, when each wait ended
(``finished``: name to seconds since the epoch), and what those that ended without a result told (``failed``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from pathlib import Path

from kubeflow.katib import KatibClient  # type: ignore[import-not-found]

MEGABYTE = 1_000_000


class Waits:
    def __init__(self, client: KatibClient, timeout: float) -> None:
        self._client = client
        self._timeout = int(timeout)
        self.finished: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def start(self, name: str) -> None:
        # A daemon: at the end nobody waits for those that still wait.
        threading.Thread(target=self._wait, args=(name,), name=name, daemon=True).start()

    def _wait(self, name: str) -> None:
        try:
            self._client.wait_for_experiment_condition(name, expected_condition="Succeeded", timeout=self._timeout)
        except (RuntimeError, TimeoutError) as error:
            self.failed[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            self.finished[name] = time.time()


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--names-file", type=Path, required=True, help="one name a line")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    names = options.names_file.read_text().split()
    begin, cpu = time.monotonic(), time.process_time()
    client = KatibClient(config_file=options.kubeconfig, namespace=options.namespace)
    # Its own limit of 600 s would end a longer measurement.
    waits = Waits(client, timeout=max(600.0, 2 * options.seconds))
    for name in names:
        waits.start(name)
    time.sleep(max(0.0, begin + options.seconds - time.monotonic()))
    found = {
        "cpu_s": time.process_time() - cpu,
        "rss_mb": resident_megabytes(),
        "threads": threading.active_count(),
        "finished": dict(waits.finished),
        "failed": dict(waits.failed),
    }
    print(json.dumps(found), flush=True)
    # The client's own thread pool would be waited for, and with it an answer that may not come.
    os._exit(0)


if __name__ == "__main__":
    main()
