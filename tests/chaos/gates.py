"""
Where a run pauses: files in a folder of its own, made by the one side and waited for by the other.

The DAG's operator and its trial wait here for the harness, which waits for them. Standard library only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Gates:
    """
    The gates of one run.

    :param folder: its own; its name is in the command line of each of its trials.
    :param phase: where its task pauses, whichever try comes so far: under load Airflow may lose the first one.
    """

    folder: Path
    phase: str

    def hold(self, phase: str) -> None:
        """Pause there until the harness lets the task go on."""
        if phase != self.phase:
            return
        (self.folder / "task-waits").touch()
        while not (self.folder / "task-may-go").exists():
            time.sleep(POLL_SECONDS)

    def open_task(self) -> None:
        (self.folder / "task-may-go").touch()

    def open_trials(self) -> None:
        (self.folder / "trials-may-go").touch()

    @property
    def task_waits(self) -> bool:
        return (self.folder / "task-waits").exists()

    @property
    def trial_waits(self) -> bool:
        return (self.folder / "trial-waits").exists()

    def deliver(self, result: Any) -> None:
        """Note that the task downstream was given the result."""
        with (self.folder / "delivered").open("a") as notes:
            notes.write(f"{result['experiment']}\n")

    @property
    def delivered(self) -> list[str]:
        """The names of the Experiments whose results arrived downstream, in this order."""
        notes = self.folder / "delivered"
        return notes.read_text().splitlines() if notes.exists() else []


def trial_script(folder: str) -> str:
    """Return what a trial runs, whose only parameter is ``rate``."""
    waits = f"touch {folder}/trial-waits; while ! test -e {folder}/trials-may-go; do sleep 0.2; done"
    return f"{waits}; echo loss=${{trialParameters.rate}}"
