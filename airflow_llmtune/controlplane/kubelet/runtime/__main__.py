"""``python -I -S <this folder> <settings>``: the runtime process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

_PACKAGE = "airflow_llmtune.controlplane.kubelet.runtime"


def _enter_package() -> None:
    """Make the packages above known without running them: their ``__init__`` imports the whole control plane."""
    names = _PACKAGE.split(".")
    here = Path(__file__).resolve().parent
    folders = [here, *here.parents][: len(names)]
    for depth, folder in enumerate(reversed(folders), 1):
        module = ModuleType(".".join(names[:depth]))
        module.__path__ = [str(folder)]
        sys.modules[module.__name__] = module
    sys.path.pop(0)  # This folder, whose files would be found under short names too.


if __name__ == "__main__":
    _enter_package()
    import_module(f"{_PACKAGE}.server").main(sys.argv[1])
