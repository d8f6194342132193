"""
Tunes, fine-tunes and serves a real LLM on this machine: `make demo`, or `make demo KEEP=1` to look around afterwards.

Files go to `.demo/`: the model and the text once, everything else for each run anew.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import urllib3
from kubernetes.client import ApiException
from rich.console import Console

from demo.airflow_site import USER, AirflowSite
from demo.cluster import Cluster, phase, run_name
from demo.processes import Processes, ServiceError
from demo.progress import Progress
from demo.report import print_answer, print_report

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAG_ID = "tune_train_serve"
TRAINER_IMAGE = "airflow-llmtune/trainer"
STEPS = ("tune", "fine_tune", "compare", "deploy", "promote")
PROMPT = "What gas makes soda bubbly?"
FAILURE = "Task failed with exception"


def main() -> int:
    options = argparse.ArgumentParser(prog="make demo", description=__doc__)
    options.add_argument("--keep", action="store_true", help="leave Airflow's UI up until Ctrl-C")
    keep = options.parse_args().keep
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else 120)
    begin = time.monotonic()
    try:
        return run(console, keep)
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted; everything is stopped.[/]")
        return 130
    except (ServiceError, httpx.HTTPError, ApiException, urllib3.exceptions.HTTPError) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False)
        return 1
    finally:
        console.print(f"Total: {time.monotonic() - begin:.0f} s")


def run(console: Console, keep: bool) -> int:
    """Return the exit code: 0 only when the run succeeded and everything was shown."""
    model, dataset = HOME / "SmolLM2-135M-Instruct", HOME / "dataset"
    home = HOME / "runs" / run_name()
    with contextlib.ExitStack() as stack:
        status = stack.enter_context(console.status("preparing model and data"))
        processes = stack.enter_context(Processes(home / "logs"))
        begin = time.monotonic()
        prepare("demo.prepare_model", model)
        prepare("demo.prepare_dataset", dataset)
        console.print(f"model and data ready after {time.monotonic() - begin:.0f} s")
        status.update("starting the control plane and Airflow")
        cluster = stack.enter_context(contextlib.closing(Cluster(home / "cluster", {TRAINER_IMAGE: Path(sys.prefix)})))
        cluster.start(processes)
        console.print("control plane up; look at it with:", highlight=False)
        console.print(f"  kubectl --kubeconfig {cluster.kubeconfig} get trials -w", highlight=False, soft_wrap=True)
        airflow = AirflowSite(home / "airflow", ROOT / "dags", cluster.connections())
        site = stack.enter_context(contextlib.closing(airflow))
        site.start(processes)
        site.wait_for_dag(DAG_ID, processes)
        console.print(f"Airflow healthy after {time.monotonic() - begin:.0f} s at {site.url}")
        conf = {"model": str(model), "dataset": str(dataset), "output_uri": str(home / "models")}
        status.update("tuning, fine-tuning, deploying")
        run_id = site.trigger(DAG_ID, conf)
        progress = Progress(console, site, cluster, processes)
        state = progress.follow(DAG_ID, run_id)
        if state == "success":
            results = {task: site.xcom(DAG_ID, run_id, task) for task in STEPS}
            print_report(console, cluster, progress, site.task_instances(DAG_ID, run_id), results)
            print_answer(console, cluster, results["deploy"], PROMPT)
        else:
            print_failure(console, site, run_id)
        page = f"{site.url}/dags/{DAG_ID}/runs/{run_id}"
        console.print(
            f"The run's page: {page}" + ("" if keep else "  (make demo KEEP=1 leaves it up)"), highlight=False
        )
        if keep:
            status.stop()
            stay(console, site, cluster)
    return 0 if state == "success" else 1


def prepare(module: str, target: Path) -> None:
    """Make the model or the data once; what is there already is kept."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(target)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServiceError(f"{module} failed:\n{done.stderr or done.stdout}")


def print_failure(console: Console, site: AirflowSite, run_id: str) -> None:
    """Say which task failed and why, in the words of its log."""
    for instance in site.task_instances(DAG_ID, run_id):
        if instance["state"] == "failed":
            console.print(f"[bold red]Task {instance['task_id']} failed.[/]")
            log = site.task_log(DAG_ID, run_id, instance["task_id"], instance["try_number"])
            # An error of Airflow itself has no such line; then the end of the log has to do.
            told = [message for message in log if message.startswith(FAILURE)] or log[-20:]
            console.print("\n".join(told), markup=False, highlight=False, soft_wrap=True)


def stay(console: Console, site: AirflowSite, cluster: Cluster) -> None:
    """Keep everything up until Ctrl-C."""
    experiments = ", ".join(f"{item['metadata']['name']} ({phase(item)})" for item in cluster.experiments())
    console.print(f"Airflow: {site.url}  user {USER}, password {site.password}", highlight=False)
    console.print(f"Experiments: {experiments}; KUBECONFIG={cluster.kubeconfig}", highlight=False)
    console.print("Ctrl-C stops everything.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (a signal handler's signature)
    # A second Ctrl-C must not cut the clean-up short, which is bounded anyhow.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Everything here is on loopback, also where the environment names a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    sys.exit(main())
