"""A program: what importing each of its arguments, a module's name or a DAG file, loads beyond what any DAG loads.

Airflow's DAG processor works the same way: it has imported what every DAG needs, and forks for each file.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterable

import airflow.triggers.base  # noqa: F401
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param
from airflow.triggers.base import BaseTrigger
from airflow.utils.file import iter_airflow_imports

OURS = frozenset({"airflow", "airflow_llmtune"})
# What no kind of trigger can do without; `started` and the rest are of deployments.
ARGUMENTS = {"name": "n", "namespace": "ns", "uid": "u"}
DEPLOYMENT = {"revisions": ["r"], "started": 0.0, "start_timeout": 1.0}


def third_parties(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - OURS - sys.stdlib_module_names


def load(name: str) -> None:
    if name.endswith(".py"):
        runpy.run_path(name)
        return
    module = importlib.import_module(name)
    for item in [getattr(module, symbol) for symbol in getattr(module, "__all__", ())]:
        if isinstance(item, type) and issubclass(item, BaseTrigger) and not name.endswith(".base"):
            item(**ARGUMENTS, **(DEPLOYMENT if name.endswith(".kserve") else {})).serialize()
        elif item is getattr(module, "get_provider_info", None):
            item()


def look(name: str) -> dict[str, list[str]]:
    first = set(sys.modules)
    if name.endswith(".py"):  # what the file names of Airflow is Airflow's
        for each in iter_airflow_imports(name):
            importlib.import_module(each)
    before = set(sys.modules)
    load(name)
    third_party = third_parties(sys.modules) - third_parties(before)
    return {"modules": sorted(set(sys.modules) - first), "third_party": sorted(third_party)}


def in_a_fork(call: Callable[[], object]) -> object:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(call()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.wait()
    return json.loads(answer)


def main(names: list[str]) -> None:
    with DAG("plain", schedule=None, params={"n": Param(1, type="integer")}):
        EmptyOperator(task_id="nothing")
    found = {name: in_a_fork(lambda name=name: look(name)) for name in names}
    found["any DAG"] = {"modules": sorted(sys.modules), "third_party": sorted(third_parties(sys.modules))}
    sys.stdout.write(f"loaded: {json.dumps(found)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
