"""Random Experiments that Katib admits and that can run, for property tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mutations import ODD_JSON, other_type, places_in
from objects import Object, shell_job

_MOST_PARAMETERS = 3
_NAMES = ("lr", "batch", "optimizer")
_CUSTOM_COLLECTOR = {"name": "collector", "image": "busybox", "command": ["collect"]}

_ranges = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_distributions = st.sampled_from(
    ({}, *({"distribution": name} for name in ("uniform", "logUniform", "normal", "logNormal")))
)


def _range(type_: str, scale: float, step: str) -> st.SearchStrategy[Object]:
    def space(bounds: tuple[int, int], distribution: dict[str, str], has_step: bool) -> Object:
        low, high = (str(bound * scale if scale < 1 else bound) for bound in bounds)
        found = {"min": low, "max": high, **({"step": step} if has_step else distribution)}
        return {"parameterType": type_, "feasibleSpace": found}

    return st.builds(space, _ranges, _distributions, st.booleans())


def _listed(type_: str, values: list[str]) -> st.SearchStrategy[Object]:
    lists = st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True)
    return lists.map(lambda found: {"parameterType": type_, "feasibleSpace": {"list": found}})


_spaces = st.one_of(
    _range("double", 0.125, "0.125"),
    _range("int", 1, "1"),
    _listed("categorical", ["sgd", "adam", "lion", "a b", "x,y"]),
    _listed("discrete", ["1", "2", "0.5", "1e-05"]),
)
_parameters = st.lists(_spaces, min_size=1, max_size=_MOST_PARAMETERS).map(
    lambda spaces: [{"name": name, **space} for name, space in zip(_NAMES, spaces, strict=False)]
)

# Random comes first: it is what a failure shrinks to.
_ALGORITHMS = (
    *("random", "random", "random", "grid", "grid", "sobol", "tpe", "multivariate-tpe", "cmaes", "hyperband", "pbt"),
    "bayesianoptimization",
)
_SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "random": {"random_state": ("7",)},
    "tpe": {"gamma": ("0.25",), "prior_weight": ("1.5",), "n_EI_candidates": ("4",), "random_state": ("7",)},
    "multivariate-tpe": {"n_startup_trials": ("2",), "n_ei_candidates": ("4",), "random_state": ("7",)},
    "cmaes": {"sigma": ("0.3",), "restart_strategy": ("none", "ipop", "bipop"), "random_state": ("7",)},
    "bayesianoptimization": {
        "base_estimator": ("GP", "RF", "ET", "GBRT"),
        "acq_func": ("gp_hedge", "LCB", "EI", "PI"),
        "random_state": ("7",),
    },
}
"""What users set, where no other setting depends on it. The bayesian search begins with ten random Trials, which few
have: a surrogate model would take most of the time.
"""

_collectors = st.sampled_from(
    (
        {},
        {"collector": {"kind": "StdOut"}},
        {"collector": {"kind": "File"}, "source": {"fileSystemPath": {"format": "JSON"}}},
        {"collector": {"kind": "TensorFlowEvent"}},
        {"collector": {"kind": "Push"}},
        {"collector": {"kind": "Custom", "customCollector": _CUSTOM_COLLECTOR}},
    )
)


@st.composite
def _counts(draw: st.DrawFn) -> Object:
    parallel = draw(st.integers(1, 4))
    counts = {"parallelTrialCount": parallel, "maxTrialCount": parallel + draw(st.integers(0, 4))}
    failed = draw(st.none() | st.integers(0, 3))
    return counts if failed is None else {**counts, "maxFailedTrialCount": min(failed, counts["maxTrialCount"])}


@st.composite
def _objectives(draw: st.DrawFn) -> Object:
    objective: Object = {"type": draw(st.sampled_from(("minimize", "maximize"))), "objectiveMetricName": "loss"}
    goal = draw(st.none() | st.sampled_from((-2.0, 0.0, 0.25, 2.0)))
    strategy = draw(st.none() | st.sampled_from(("min", "max", "latest")))
    if goal is not None:
        objective["goal"] = goal
    if strategy is not None:
        objective["metricStrategies"] = [{"name": "loss", "value": strategy}]
    if draw(st.booleans()):
        objective["additionalMetricNames"] = ["accuracy"]
    return objective


def _pytorch_job(script: str) -> Object:
    pod = {"containers": [{"name": "pytorch", "image": "torch", "command": ["sh", "-c", script]}]}
    replicas = {"Master": {"replicas": 1, "template": {"spec": pod}}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": replicas}}


def _train_job(script: str) -> Object:
    spec = {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"command": ["sh", "-c", script]}}
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": spec}


_JOBS = {"main": shell_job, "pytorch": _pytorch_job, "node": _train_job}
"""By the name of their primary container."""

_places = st.tuples(st.sampled_from(tuple(_JOBS)), st.sampled_from((True, True, False)))


def _script(names: Sequence[str]) -> str:
    return "train " + " ".join(f"--{name}=${{trialParameters.{name}_value}}" for name in names)


CONFIG_MAP_WITH_TEMPLATES: Object = {
    "metadata": {"name": "templates", "namespace": "default"},
    "data": {
        f"{container}-{count}": json.dumps(job(_script(_NAMES[:count])))
        for container, job in _JOBS.items()
        for count in range(1, _MOST_PARAMETERS + 1)
    },
}


def _condition(type_: str) -> str:
    return f'status.conditions.#(type=="{type_}")#|#(status=="True")#'


def _source(names: Sequence[str], container: str, is_inline: bool) -> Object:
    if is_inline:
        return {"trialSpec": _JOBS[container](_script(names))}
    place = {"configMapName": "templates", "configMapNamespace": "default"}
    return {
        "configMap": {**place, "templatePath": f"{container}-{len(names)}"},
        # Katib knows the conditions of inline templates only.
        "successCondition": _condition("Succeeded" if container == "pytorch" else "Complete"),
        "failureCondition": _condition("Failed"),
    }


def _template(parameters: list[Object], source: Object, container: str, retain: bool) -> Object:
    return {
        "primaryContainerName": container,
        "retain": retain,
        "trialParameters": [{"name": f"{one['name']}_value", "reference": one["name"]} for one in parameters],
        **source,
    }


def _suit(spec: Object, *, is_endless: bool) -> None:
    """What an algorithm needs to begin at all."""
    numbers = [one for one in spec["parameters"] if one["parameterType"] in {"int", "double"}]
    match spec["algorithm"]["algorithmName"]:
        case "grid":
            for parameter in numbers:
                parameter["feasibleSpace"]["step"] = "1"
            if is_endless:
                del spec["maxTrialCount"]
        case "hyperband":
            resource = {"parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}}
            spec["parameters"][0].update(resource)
            spec.update(parallelTrialCount=4, maxTrialCount=4 + spec["maxTrialCount"])
            _set(spec, r_l="4", eta="2", resource_name=spec["parameters"][0]["name"])
        case "pbt":
            for parameter in numbers:
                parameter["feasibleSpace"]["step"] = "0.125" if parameter["parameterType"] == "double" else "1"
            spec["resumePolicy"] = "FromVolume"
            _set(spec, suggestion_trial_dir="/opt/katib/data", n_population="5", truncation_threshold="0.4")


def _set(spec: Object, **settings: str) -> None:
    spec["algorithm"]["algorithmSettings"] = [{"name": name, "value": value} for name, value in settings.items()]


@st.composite
def _settings(draw: st.DrawFn, algorithm: str) -> list[Object]:
    known = _SETTINGS.get(algorithm, {})
    chosen = draw(st.lists(st.sampled_from(sorted(known)), unique=True)) if known else []
    return [{"name": name, "value": draw(st.sampled_from(known[name]))} for name in chosen]


@st.composite
def _algorithms(draw: st.DrawFn) -> Object:
    name = draw(st.sampled_from(_ALGORITHMS))
    settings = draw(_settings(name))
    return {"algorithmName": name, **({"algorithmSettings": settings} if settings else {})}


@st.composite
def experiments(draw: st.DrawFn, *, only_inline_jobs: bool = False) -> Object:
    """``CONFIG_MAP_WITH_TEMPLATES`` and the shipped runtime must be there, unless with ``only_inline_jobs``."""
    parameters = draw(_parameters)
    container, is_inline = ("main", True) if only_inline_jobs else draw(_places)
    source = _source([one["name"] for one in parameters], container, is_inline)
    optional: dict[str, Any] = {
        "resumePolicy": draw(st.sampled_from((None, "Never", "LongRunning", "FromVolume"))),
        "metricsCollectorSpec": draw(_collectors) or None,
        "earlyStopping": draw(st.none() | st.just({"algorithmName": "medianstop"})),
    }
    spec = {
        "objective": draw(_objectives()),
        "algorithm": draw(_algorithms()),
        "parameters": parameters,
        "trialTemplate": _template(parameters, source, container, draw(st.booleans())),
        **draw(_counts()),
        **{name: value for name, value in optional.items() if value is not None},
    }
    _suit(spec, is_endless=draw(st.booleans()))
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "exp", "namespace": "default"},
        "spec": spec,
    }


_KEPT = {
    ("maxTrialCount",),
    ("trialTemplate", "successCondition"),
    ("trialTemplate", "failureCondition"),
    ("trialTemplate", "trialSpec", "apiVersion"),
}
"""Without a limit, with conditions that never hold or a kind that is not served, there is rightly no end."""


@st.composite
def mutated_experiments(draw: st.DrawFn) -> Object:
    """Valid ones of which a few keys or values were changed, anyhow, but for what says when they end."""
    experiment = copy.deepcopy(draw(experiments()))
    experiment["spec"].setdefault("maxTrialCount", experiment["spec"]["parallelTrialCount"])
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        places = [("spec", *path) for path in places_in(experiment["spec"]) if path not in _KEPT]
        deep = [path for path in places if "trialSpec" in path[:-1]]
        *way, key = draw(st.sampled_from(deep or places) | st.sampled_from(places))
        holder = experiment
        for step in way:
            holder = holder[step]
        match draw(st.sampled_from(("odd", "odd", "delete", "other type"))):
            case "odd":
                holder[key] = copy.deepcopy(draw(st.sampled_from(ODD_JSON)))
            case "delete":
                del holder[key]
            case "other type":
                holder[key] = other_type(holder[key])
    return experiment
