"""What this provider knows of each Kubernetes kind: arguments in, manifests out; objects in, outcomes out.

Pure: the standard library only. No I/O, no clock, no randomness, nothing of Airflow. Nothing here creates,
watches or deletes an object; hooks and triggers do. Wire names of Katib and Kubernetes stay in this package.

`from airflow_llmtune.resources import experiment` loads that module when something of it is asked for: a DAG file is
parsed again and again, and most of what is here serves tasks only.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Later(ModuleType):
    """
    Stands for a module, of which it knows no more than the name.

    What is set on it does not reach the module: a test that replaces something has to name the module by its full path.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        module = f"{__name__}.{name}"
        if find_spec(module) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _Later(module)
