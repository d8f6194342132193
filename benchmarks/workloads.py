"""Trials that do next to nothing, in each kind of job and for each kind of metrics collector."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

Object = dict[str, Any]

DB_MANAGER = "katib-db-manager.kubeflow:6789"
EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/default/experiments"
TRIALS = "/apis/kubeflow.org/v1beta1/namespaces/default/trials"

_METRICS_FILE = "/var/log/katib/metrics.log"
_EVENTS_FOLDER = "/var/log/katib/tfevent"
_PUSH = Path(__file__).with_name("push_metric.py")


@dataclass(frozen=True)
class Workload:
    """``script`` as a trial runs it; ``bare`` as a shell runs it here, for comparison."""

    name: str
    script: str
    bare: str
    collector: Object
    job: Callable[[Object], Object]
    container: str = "main"
    environment: Mapping[str, str] = field(default_factory=dict)

    def experiment(self, name: str, *, trials: int, parallel: int) -> Object:
        # The parameter is used nowhere in the command, so that all trials are the same.
        command = ["sh", "-c", ": ${trialParameters.rate}; (" + self.script + ")"]
        container = {"name": self.container, "image": "busybox", "command": command}
        template = {
            "primaryContainerName": self.container,
            "trialParameters": [{"name": "rate", "reference": "rate"}],
            "trialSpec": self.job({"restartPolicy": "Never", "containers": [container]}),
        }
        space = {"name": "rate", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.9"}}
        return {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "Experiment",
            "metadata": {"name": name},
            "spec": {
                "objective": {"type": "minimize", "objectiveMetricName": "loss"},
                "algorithm": {"algorithmName": "random"},
                "parallelTrialCount": parallel,
                "maxTrialCount": trials,
                "parameters": [space],
                "metricsCollectorSpec": self.collector,
                "trialTemplate": template,
            },
        }


def batch_job(pod: Object) -> Object:
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": {"spec": pod}}}


def pytorch_job(pod: Object) -> Object:
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": pod}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {"Master": master}}}


def train_job(pod: Object) -> Object:
    """The pod's own words on the shipped runtime."""
    trainer = {"image": pod["containers"][0]["image"], "command": pod["containers"][0]["command"]}
    spec = {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer}
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": spec}


def _collector(kind: str, /, **file: str) -> Object:
    return {"collector": {"kind": kind}, **({"source": {"fileSystemPath": file}} if file else {})}


def printing(name: str, job: Callable[[Object], Object], container: str = "main") -> Workload:
    line = "echo loss=0.5"
    return Workload(name, line, line, _collector("StdOut"), job, container)


def workloads(folder: Path, database: str) -> Sequence[Workload]:
    """``folder`` takes what the trials read, ``database`` answers the pushes that are made outside of a trial."""
    events, python = write_event_file(folder), shlex.quote(sys.executable)
    json_line = """echo '{"loss": "0.5"}' > """
    push = f"{python} {shlex.quote(str(_PUSH))}"
    target, copied = folder / "target", f"mkdir -p {_EVENTS_FOLDER}; cp {shlex.quote(str(events))}"
    return (
        printing("Job, StdOut", batch_job),
        Workload(
            "Job, File TEXT",
            f"echo loss=0.5 > {_METRICS_FILE}",
            f"echo loss=0.5 > {target}",
            _collector("File", path=_METRICS_FILE, kind="File", format="TEXT"),
            batch_job,
        ),
        Workload(
            "Job, File JSON",
            json_line + _METRICS_FILE,
            json_line + str(target),
            _collector("File", path=_METRICS_FILE, kind="File", format="JSON"),
            batch_job,
        ),
        Workload(
            "Job, TensorFlowEvent",
            f"{copied} {_EVENTS_FOLDER}/",
            f"cp {events} {target}",
            _collector("TensorFlowEvent", path=_EVENTS_FOLDER, kind="Directory"),
            batch_job,
        ),
        Workload(
            "Job, Push",
            f"{push} {DB_MANAGER}",
            f"KATIB_TRIAL_NAME=bare {push} {database}",
            _collector("Push"),
            batch_job,
        ),
        printing("PyTorchJob, StdOut", pytorch_job, "pytorch"),
        printing("TrainJob, StdOut", train_job, "node"),
    )


def write_event_file(folder: Path) -> Path:
    writer = EventFileWriter(str(folder / "events"))
    writer.add_event(Event(step=1, summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])))
    writer.close()
    (path,) = (folder / "events").iterdir()
    return path
