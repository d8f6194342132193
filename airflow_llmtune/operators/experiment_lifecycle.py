"""What all operators of Experiments share: how the result, the failure and the leftovers of one are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import ExperimentFailedError, OutcomeError
from airflow_llmtune.operators.base import KubeflowOperator
from airflow_llmtune.operators.diagnosis import explain
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import Outcome

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["ExperimentLifecycle"]

JSON = dict[str, Any]
TRIAL_LABEL = "katib.kubeflow.org/trial"
# More failed trials than these say the same thing again.
EXPLAINED_TRIALS = 3


class ExperimentLifecycle(KubeflowOperator):
    """Waits for an Experiment and returns its best trial."""

    _progress: JSON | None = None

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        from airflow_llmtune.triggers.katib import KatibExperimentTrigger

        return KatibExperimentTrigger

    def decoder(self, obj: JSON) -> Callable[[Mapping[str, str]], JSON]:
        """Return what turns Katib's strings into typed parameters."""
        return experiment.search_space_of(obj)

    def artifact_uri(self, trial: str) -> str | None:  # noqa: ARG002 (a hook for the subclass)
        """Return where the trial left its model; None when it left none."""
        return None

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        from airflow_llmtune.triggers.progress import XCOM_KEY

        try:
            return super().execute_complete(context, event)
        finally:
            # The trigger's last one may be of a moment before the last trial; a failed Experiment has one, too.
            if self._progress is not None:
                context["ti"].xcom_push(XCOM_KEY, self._progress)

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:  # noqa: ARG002
        optimum = experiment.read_optimum(obj)
        uri = None if optimum is None else self.artifact_uri(optimum.trial)
        result = experiment.read_result(obj, self.decoder(obj), uri)
        self.log.info(
            "Best trial %s: parameters %s, metrics %s",
            result["trial"],
            result["parameters"],
            result["metrics"],
        )
        return result

    async def stop_leftovers(self, client: KubeflowClient, obj: JSON) -> None:
        """Delete the trials that still run: Katib itself lets them go on after the Experiment has finished."""
        from airflow_llmtune.resources.tuning_progress import read_end

        trials = await self._trials(client, obj)
        self._progress = read_end(obj, trials)
        for trial in trials:
            if not experiment.read_trial(trial)["finished"]:
                metadata = trial["metadata"]
                self.log.info("Stopping trial %s, which still runs", metadata["name"])
                await client.delete(experiment.TRIAL_KIND, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        metadata = obj["metadata"]
        lines = [f"Experiment {metadata['name']} in namespace {metadata['namespace']} failed: {outcome.message}"]
        failed = [trial for trial in map(experiment.read_trial, await self._trials(client, obj)) if trial["failed"]]
        told: list[str] = []
        for trial in failed[:EXPLAINED_TRIALS]:
            pods = f"{TRIAL_LABEL}={trial['name']}"
            reasons = await explain(client, metadata["namespace"], trial["name"], pods)
            lines.append(f"  trial {trial['name']} {trial['parameters']}: {trial['message']}")
            # Trials that fail for one cause are told so, instead of the same text again.
            lines += [f"    {reason}" for reason in reasons] if reasons != told else ["    for the same reason"]
            told = reasons
        if len(failed) > EXPLAINED_TRIALS:
            lines.append(f"  and {len(failed) - EXPLAINED_TRIALS} more failed trials")
        return ExperimentFailedError("\n".join(lines))

    async def _trials(self, client: KubeflowClient, obj: JSON) -> list[JSON]:
        from airflow_llmtune.resources.tuning_progress import EXPERIMENT_LABEL

        metadata = obj["metadata"]
        selector = f"{EXPERIMENT_LABEL}={metadata['name']}"
        trials, _ = await client.list_all(experiment.TRIAL_KIND, metadata["namespace"], label_selector=selector)
        return sorted(trials, key=lambda trial: (trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]))
