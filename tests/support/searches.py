"""Parameter specs, and what the tests of the search algorithms ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import PastTrial, SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, parse


def double(name: str, low: str, high: str, **more: str) -> dict[str, Any]:
    space = {"min": low, "max": high, **more}
    return {"name": name, "parameterType": "double", "feasibleSpace": space}


def integer(name: str, low: str, high: str, **more: str) -> dict[str, Any]:
    return {**double(name, low, high, **more), "parameterType": "int"}


def choice(name: str, *options: str, type_: str = "categorical") -> dict[str, Any]:
    return {"name": name, "parameterType": type_, "feasibleSpace": {"list": list(options)}}


def request(parameters: list[dict[str, Any]], **more: Any) -> SearchRequest:
    known: dict[str, Any] = {
        "minimize": True,
        "experiment_uid": "uid",
        "experiment_name": "exp",
        "resume_policy": "FromVolume",
        "parallel_trial_count": 9,
    }
    return SearchRequest(space=parse(parameters), **(known | more))


def points(name: str, asked: SearchRequest, count: int) -> list[Assignments]:
    return [dict(one.assignments) for one in load(name).suggest(asked, count).suggested]


def search(
    name: str,
    parameters: list[dict[str, Any]],
    loss: Callable[[Assignments], float],
    *,
    trials: int,
    parallel: int = 1,
    **more: Any,
) -> list[PastTrial]:
    """A whole search: always so many trials in parallel, and all of them end before the next are asked for."""
    algorithm, past = load(name), list[PastTrial]()
    while len(past) < trials:
        reply = algorithm.suggest(request(parameters, past=past, **more), min(parallel, trials - len(past)))
        past += [
            PastTrial(dict(one.assignments), "complete", loss(dict(one.assignments)), one.name, one.labels)
            for one in reply.suggested
        ]
        if reply.ended:
            break
    return past
