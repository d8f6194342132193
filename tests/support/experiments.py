"""Random Experiments that Katib admits and that can run, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from objects import Object, shell_job

_NAMES = ("lr", "batch", "optimizer", "depth")
_CUSTOM_COLLECTOR = {"name": "collector", "image": "busybox", "command": ["collect"]}

_ranges = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_distributions = st.sampled_from(({}, {"distribution": "uniform"}, {"distribution": "logUniform"}))


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
_parameters = st.lists(_spaces, min_size=1, max_size=3).map(
    lambda spaces: [{"name": name, **space} for name, space in zip(_NAMES, spaces, strict=False)]
)

# The cheap ones: a surrogate model would take most of the time. Random comes first: it is what a failure shrinks to.
_algorithms = st.sampled_from(
    ("random", "random", "random", "grid", "grid", "sobol", "tpe", "multivariate-tpe", "cmaes", "hyperband", "pbt")
)

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


def _template(parameters: list[Object], retain: bool) -> Object:
    words = " ".join(f"--{one['name']}=${{trialParameters.{one['name']}_value}}" for one in parameters)
    return {
        "primaryContainerName": "main",
        "retain": retain,
        "trialParameters": [{"name": f"{one['name']}_value", "reference": one["name"]} for one in parameters],
        "trialSpec": shell_job(f"train {words}"),
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
def experiments(draw: st.DrawFn) -> Object:
    parameters = draw(_parameters)
    optional: dict[str, Any] = {
        "resumePolicy": draw(st.sampled_from((None, "Never", "LongRunning", "FromVolume"))),
        "metricsCollectorSpec": draw(_collectors) or None,
        "earlyStopping": draw(st.none() | st.just({"algorithmName": "medianstop"})),
    }
    spec = {
        "objective": draw(_objectives()),
        "algorithm": {"algorithmName": draw(_algorithms)},
        "parameters": parameters,
        "trialTemplate": _template(parameters, draw(st.booleans())),
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
