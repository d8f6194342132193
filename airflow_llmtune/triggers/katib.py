"""Waits for a Katib Experiment, and tells of its Trials meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_llmtune.hooks.experiment_diagnosis import explain_experiment, read_trials
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import IDENTITY_LABEL, Outcome
from airflow_llmtune.resources.tuning_progress import (
    EXPERIMENT_LABEL,
    TuningProgress,
    experiment_of,
    read_end,
    read_finished,
    read_snapshot,
)
from airflow_llmtune.triggers.base import WaitTrigger
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.progress import Publication, push
from airflow_llmtune.triggers.shared_watch import Companion, View

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["KatibExperimentTrigger"]

JSON = dict[str, Any]


class KatibExperimentTrigger(WaitTrigger):
    """Fires when an Experiment has finished; see :class:`WaitTrigger` for the arguments."""

    kind = experiment.KIND
    read_outcome = staticmethod(experiment.read_outcome)
    read_progress = staticmethod(read_snapshot)

    pod_selector = staticmethod(experiment.pod_selector)

    _tuning: TuningProgress
    _publication: Publication

    @classmethod
    async def read_reasons(cls, client: KubeflowClient, obj: JSON) -> list[str]:
        return await explain_experiment(client, obj)

    async def wait(self, *, alone: bool = False) -> Outcome:
        self._tuning = TuningProgress()
        with closing(Publication(self.task_instance, self._tuning.to_xcom)) as self._publication:
            return await super().wait(alone=alone)

    def companions(self, *, alone: bool) -> Sequence[Companion]:
        # Katib copies the Experiment's labels to its Trials.
        label = f"{EXPERIMENT_LABEL}={self.name}" if alone else IDENTITY_LABEL
        trials = Selection(
            experiment.TRIAL_KIND,
            self.namespace,
            read_finished,
            _experiments_of,
            label_selector=label,
            changes_only=True,
            optional=True,
        )
        return [*super().companions(alone=alone), Companion(trials, self._tell_trials)]

    def tell(self, progress: Any) -> None:
        self._tell_line(self._tuning.update(progress))

    def _tell_trials(self, news: View) -> None:
        for trial in news.take_changes():
            self._scrutiny.patience.moved()
            self._tell_line(self._tuning.add(trial))

    def _tell_line(self, line: str | None) -> None:
        if line is not None:
            self.log.info("%s %s: %s", self.kind.kind, self.name, line)
        if self._tuning.has_begun:
            self._publication.changed()

    async def tell_last(self, client: KubeflowClient, obj: JSON) -> None:
        told = read_end(obj, await read_trials(client, obj))
        self.log.info("%s %s got as far as: %s", self.kind.kind, self.name, told["best"])
        await push(self.task_instance, told)


def _experiments_of(trial: JSON) -> tuple[str]:
    return (experiment_of(trial),)
