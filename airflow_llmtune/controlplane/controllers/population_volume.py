"""The checkpoints of ``pbt``: a folder for each Trial on its Suggestion's volume, begun as a copy of its parent's.

A pod of the Trial mounts its folder (``<experiment>/<trial>``); that is made before the Trial exists.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from airflow_llmtune.controlplane.algorithms.population_labels import PARENT_LABEL
from airflow_llmtune.controlplane.algorithms.request import Suggested


def prepare(folder: Path, suggested: Sequence[Suggested]) -> None:
    """Takes as long as copying does: call it off the loop."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in suggested:
        parent = one.labels.get(PARENT_LABEL)
        _begin(folder / one.name, folder / parent if parent else None)


def _begin(own: Path, parent: Path | None) -> None:
    """All of the copy or nothing of it: the folder gets its name when it is complete, and goes when it cannot be."""
    if parent is None or not parent.is_dir():
        own.mkdir()
        return
    unfinished = own.with_name(f".{own.name}")
    try:
        shutil.copytree(parent, unfinished, symlinks=True, ignore=_special)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(own)


def _special(folder: str, names: Sequence[str]) -> list[str]:
    """Sockets and pipes that a training has left behind, which nothing can copy."""
    places = {name: Path(folder, name) for name in names}
    return [name for name, place in places.items() if not (place.is_symlink() or place.is_file() or place.is_dir())]
