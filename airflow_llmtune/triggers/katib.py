"""Waits for a Katib Experiment, and tells of its Trials meanwhile."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import IDENTITY_LABEL, Outcome
from airflow_llmtune.resources.tuning_progress import (
    EXPERIMENT_LABEL,
    TuningProgress,
    experiment_of,
    read_finished,
    read_snapshot,
)
from airflow_llmtune.triggers.base import WaitTrigger
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.progress import Publication

__all__ = ["KatibExperimentTrigger"]


class KatibExperimentTrigger(WaitTrigger):
    """Fires when an Experiment has finished; see :class:`WaitTrigger` for the arguments."""

    kind = experiment.KIND
    read_outcome = staticmethod(experiment.read_outcome)
    read_progress = staticmethod(read_snapshot)

    _tuning: TuningProgress
    _publication: Publication

    async def wait(self, *, alone: bool = False) -> Outcome:
        self._tuning = TuningProgress()
        with closing(Publication(self.task_instance, self._tuning.to_xcom)) as self._publication:
            return await super().wait(alone=alone)

    def changes_of(self, *, alone: bool) -> Selection:
        # Katib copies the Experiment's labels to its Trials.
        label = f"{EXPERIMENT_LABEL}={self.name}" if alone else IDENTITY_LABEL
        return Selection(
            experiment.TRIAL_KIND, self.namespace, read_finished, experiment_of, label_selector=label, changes_only=True
        )

    def tell(self, progress: Any) -> None:
        self._tell_line(self._tuning.update(progress))

    def tell_change(self, change: Any) -> None:
        self._tell_line(self._tuning.add(change))

    def _tell_line(self, line: str | None) -> None:
        if line is not None:
            self.log.info("%s %s: %s", self.kind.kind, self.name, line)
        if self._tuning.has_begun:
            self._publication.changed()
