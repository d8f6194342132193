"""Questions to a running control plane: what it serves, and whether admission takes each word that Katib knows."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from airflow_llmtune.controlplane import ControlPlane

Object = dict[str, Any]
Verdicts = list[tuple[str, "Verdict"]]

EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/default/experiments?dryRun=All"

# Katib's words; what becomes of each is the control plane's to say.
ALGORITHMS = (
    *("random", "grid", "tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol", "hyperband", "pbt"),
    *("enas", "darts"),
)
COLLECTORS: dict[str, Object] = {
    "StdOut": {},
    "File": {},
    "TensorFlowEvent": {},
    "PrometheusMetric": {},
    "Push": {},
    "Custom": {
        "collector": {"customCollector": {"name": "collect", "image": "busybox", "command": ["true"]}},
        "source": {"fileSystemPath": {"kind": "File", "path": "/metrics/file"}},
    },
}
PARAMETER_TYPES: dict[str, Object] = {
    "double": {"min": "0.1", "max": "0.9"},
    "int": {"min": "1", "max": "9"},
    "discrete": {"list": ["1", "2"]},
    "categorical": {"list": ["a", "b"]},
    "unknown": {"list": ["a", "b"]},
}
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal", "unknown")
RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")
TRIAL_KINDS = {
    "Job": "batch/v1",
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    **dict.fromkeys(("PyTorchJob", "TFJob", "XGBoostJob", "MPIJob", "PaddleJob", "JAXJob"), "kubeflow.org/v1"),
    "Workflow": "argoproj.io/v1alpha1",
}


@dataclass(frozen=True)
class Resource:
    kind: str
    api_version: str
    verbs: Sequence[str]
    subresources: Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """Admission's answer to one Experiment; ``text`` is a refusal's."""

    accepted: bool
    text: str = ""


class Session:
    def __init__(self, plane: ControlPlane) -> None:
        cluster = yaml.safe_load(plane.kubeconfig)["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._trust = ssl.create_default_context(cadata=authority)
        self._plane = plane

    def resources(self) -> list[Resource]:
        """In the order of discovery: the core first, then the groups."""
        groups = self._ask("/apis")["groups"]
        roots = ["/api/v1", *(f"/apis/{each['groupVersion']}" for group in groups for each in group["versions"])]
        return [resource for root in roots for resource in _resources(self._ask(root))]

    def algorithms(self) -> Verdicts:
        return [(word, self._admit(algorithm={"algorithmName": word})) for word in ALGORITHMS]

    def collectors(self) -> Verdicts:
        return [
            (word, self._admit(metricsCollectorSpec={**spec, "collector": {**spec.get("collector", {}), "kind": word}}))
            for word, spec in COLLECTORS.items()
        ]

    def parameter_types(self) -> Verdicts:
        return [
            (word, self._admit(parameters=[{"name": "rate", "parameterType": word, "feasibleSpace": space}]))
            for word, space in PARAMETER_TYPES.items()
        ]

    def distributions(self) -> Verdicts:
        return [
            (
                word,
                self._admit(
                    parameters=[
                        {
                            "name": "rate",
                            "parameterType": "double",
                            "feasibleSpace": {**PARAMETER_TYPES["double"], "distribution": word},
                        }
                    ]
                ),
            )
            for word in DISTRIBUTIONS
        ]

    def resume_policies(self) -> Verdicts:
        return [(word, self._admit(resumePolicy=word)) for word in RESUME_POLICIES]

    def trial_kinds(self) -> Verdicts:
        return [
            (kind, self._admit(trialTemplate=_template({"apiVersion": version, "kind": kind, **_BODIES.get(kind, {})})))
            for kind, version in TRIAL_KINDS.items()
        ]

    def _admit(self, **spec: Any) -> Verdict:
        try:
            self._ask(EXPERIMENTS, _experiment(spec))
        except HTTPError as error:
            message = json.loads(error.read())["message"]
            return Verdict(accepted=False, text=message.partition("denied the request: ")[2] or message)
        return Verdict(accepted=True)

    def _ask(self, path: str, body: Object | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._plane.token}", "Content-Type": "application/json"}
        request = Request(self._plane.url + path, data, headers)  # noqa: S310 (it is our own server)
        with urlopen(request, context=self._trust) as answer:  # noqa: S310
            return json.load(answer)


def _resources(listed: Any) -> Iterable[Resource]:
    for entry in listed["resources"]:
        if "/" in entry["name"]:
            continue
        below = [
            each["name"].partition("/")[2]
            for each in listed["resources"]
            if each["name"].startswith(f"{entry['name']}/")
        ]
        yield Resource(entry["kind"], listed["groupVersion"], entry["verbs"], below)


_POD = {
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {"name": "main", "image": "busybox", "command": ["echo", "loss=${trialParameters.rate}"]},
        ],
    }
}
_TEXT = "echo loss=${trialParameters.rate}"
_BODIES: dict[str, Object] = {
    "Job": {"spec": {"template": _POD}},
    "PyTorchJob": {"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": _POD}}}},
    "TrainJob": {"spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"command": _TEXT.split()}}},
}


def _template(trial_spec: Object) -> Object:
    return {
        "primaryContainerName": "node" if trial_spec["kind"] == "TrainJob" else "main",
        "trialParameters": [{"name": "rate", "reference": "rate"}],
        "trialSpec": trial_spec if "spec" in trial_spec else {**trial_spec, "spec": {"text": _TEXT}},
    }


def _experiment(spec: Object) -> Object:
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "probe"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parameters": [
                {"name": "rate", "parameterType": "double", "feasibleSpace": PARAMETER_TYPES["double"]},
            ],
            "trialTemplate": _template({"apiVersion": "batch/v1", "kind": "Job", **_BODIES["Job"]}),
            **spec,
        },
    }
