"""``python -m airflow_llmtune.controlplane``: the control plane in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

from airflow_llmtune.controlplane.kubelet.node import ResourceError, all_resources
from airflow_llmtune.controlplane.plane import ControlPlane, CrashError, StartError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m airflow_llmtune.controlplane",
        description="A Kubernetes API server with Katib whose pods are processes of this machine.",
    )
    made.add_argument("--kubeconfig", type=Path, required=True, metavar="PATH", help="where to write how to reach it")
    made.add_argument("--port", type=int, default=0, help="default: any free one")
    made.add_argument(
        "--gateway-port", type=int, default=0, metavar="PORT", help="where models answer (default: any free one)"
    )
    made.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    made.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="keeps everything; started again with it, the control plane goes on (default: keep nothing)",
    )
    made.add_argument(
        "--image",
        action="append",
        type=_image,
        metavar="NAME=PREFIX",
        help="where the programs of an image are, such as a virtual environment; without any, all images run "
        "the programs of this machine",
    )
    made.add_argument(
        "--namespace",
        action="append",
        metavar="NAME",
        help="a namespace to make, may be repeated (default: default)",
    )
    made.add_argument(
        "--node-resource",
        action="append",
        type=_node_resource,
        metavar="NAME=QUANTITY",
        help="what pods can ask for, such as cpu=4, memory=8Gi or nvidia.com/gpu=1, may be repeated (default: the "
        "CPUs and the memory of this machine, no GPUs)",
    )
    made.add_argument(
        "--job-backoff-seconds",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="wait after a Job's first failed pod, doubled each time (default: 10)",
    )
    made.add_argument("--strict", action="store_true", help="show Katib's own faults instead of repairing them")
    return made


def _image(text: str) -> tuple[str, Path]:
    name, separator, prefix = text.partition("=")
    if not separator or not name or not Path(prefix).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PREFIX with an existing folder")
    return name, Path(prefix)


def _node_resource(text: str) -> tuple[str, str]:
    name, separator, quantity = text.partition("=")
    try:
        all_resources({name: quantity})
    except ResourceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=QUANTITY")
    return name, quantity


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # A SimpleQueue, for its put may interrupt its own get; blocking the signals instead would also block them
    # in every process of a pod.
    stop_requests: SimpleQueue[int] = SimpleQueue()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _: stop_requests.put(number))
    try:
        _serve(options, stop_requests)
    except (StartError, CrashError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace, stop_requests: SimpleQueue[int]) -> None:
    with ControlPlane(
        host=options.host,
        port=options.port,
        gateway_port=options.gateway_port,
        state_dir=options.state_dir,
        images=dict(options.image) if options.image else None,
        namespaces=options.namespace or ["default"],
        node_resources=dict(options.node_resource or ()),
        job_backoff_base_seconds=options.job_backoff_seconds,
        strict=options.strict,
        on_crash=lambda: stop_requests.put(0),
    ) as plane:
        try:
            plane.write_kubeconfig(options.kubeconfig)
        except OSError as error:
            raise StartError(f"cannot write the kubeconfig {options.kubeconfig}: {error.strerror}") from error
        ready = f"control plane ready at {plane.url}, models at {plane.gateway_url}, kubeconfig {options.kubeconfig}"
        print(ready, flush=True)
        stop_requests.get()


if __name__ == "__main__":
    sys.exit(main())
