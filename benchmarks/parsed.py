"""A program: what importing its arguments, DAG files or modules, costs a process that has imported Airflow's SDK.

It has what Airflow's DAG processor has before it forks for a file, and what no DAG goes without.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path

import airflow.triggers.base  # noqa: F401
import psutil
from airflow.sdk import DAG, BaseOperator  # noqa: F401 (loaded when they are named)

from benchmarks.served import MEGABYTE


def load(name: str) -> None:
    if not name.endswith(".py"):
        importlib.import_module(name)
        return
    # As Airflow's DagBag does: the bytecode of a DAG file is kept, and the module too.
    spec = importlib.util.spec_from_file_location(f"parsed_{Path(name).stem}", name)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main(names: list[str]) -> None:
    process, modules = psutil.Process(), len(sys.modules)
    memory, cpu, begin = process.memory_full_info().uss, time.process_time(), time.perf_counter()
    for name in names:
        load(name)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = {
        "cpu_ms": cpu * 1000,
        "ms": seconds * 1000,
        "mb": (process.memory_full_info().uss - memory) / MEGABYTE,
        "modules": len(sys.modules) - modules,
    }
    print("parsed:", json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
