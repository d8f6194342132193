"""What all operators of Experiments share: how the result, the failure and the leftovers of one are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import ExperimentFailedError, KubernetesApiError, OutcomeError
from airflow_llmtune.operators.base import KubeflowOperator
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.meta import Outcome, path, whole
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["ExperimentLifecycle"]

JSON = dict[str, Any]
USE_BEST = "use_best"
ON_TROUBLE = ("fail", USE_BEST)


class ExperimentLifecycle(KubeflowOperator):
    """
    Waits for an Experiment and returns its best trial.

    :param on_timeout: ``fail``, or ``use_best``: return the best trial so far when the deadline passes.
    :param on_failure: ``fail``, or ``use_best``: return the best trial of an Experiment that failed or stalled.
    :param min_succeeded_trials: fail when fewer trials than this succeeded, whatever the rest may say.
    :param stop_leftovers: stop the trials that still run after the Experiment has finished; Katib lets them go on.

    Further arguments: :class:`~airflow_llmtune.operators.base.KubeflowOperator`.
    """

    def __init__(
        self,
        *,
        on_timeout: str = "fail",
        on_failure: str = "fail",
        min_succeeded_trials: int | str = 1,
        stop_leftovers: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_timeout = on_timeout
        self.on_failure = on_failure
        self.min_succeeded_trials = min_succeeded_trials
        self.stop_leftovers = stop_leftovers
        self._progress: JSON | None = None

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        from airflow_llmtune.triggers.katib import KatibExperimentTrigger

        return KatibExperimentTrigger

    def decoder(self, obj: JSON) -> Callable[[Mapping[str, str]], JSON]:
        """Return what turns Katib's strings into typed parameters."""
        return experiment.search_space_of(obj)

    def artifact_uri(self, name: str, trial: str) -> str | None:  # noqa: ARG002 (a hook for the subclass)
        """Return where the trial left its model; None when it left none."""
        return None

    @property
    def uses_failed(self) -> bool:
        return self.on_failure == USE_BEST

    def execute_complete(self, context: Context, event: JSON) -> JSON:
        try:
            return super().execute_complete(context, event)
        finally:
            # The trigger's last one may be of a moment before the last trial; a failed Experiment has one, too.
            self._try_to_tell_progress()

    def _check_waiting(self, problems: Problems) -> None:
        super()._check_waiting(problems)
        problems.choice("on_timeout", self.on_timeout, ON_TROUBLE)
        problems.choice("on_failure", self.on_failure, ON_TROUBLE)
        problems.integer("min_succeeded_trials", self.min_succeeded_trials, at_least=1)

    def _check_together(self, manifest: JSON, problems: Problems) -> None:
        super()._check_together(manifest, problems)
        wanted, most = whole(self.min_succeeded_trials), whole(path(manifest, "spec", "maxTrialCount"))
        if wanted is not None and most is not None and wanted > most:
            rule = f"is more than the {most} trials that there are at most"
            problems.add("min_succeeded_trials", wanted, rule, f"give {most} or less, or allow more trials")

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        await self._check_succeeded_trials(client, obj)
        optimum = experiment.read_optimum(obj)
        uri = None if optimum is None else self.artifact_uri(obj["metadata"]["name"], optimum.trial)
        # Its last value counts as that of any other, so it may be the best; but it was ended before it saved.
        if uri and optimum and optimum.trial in (path(obj, "status", "earlyStoppedTrialList") or []):
            self.log.warning("The best trial, %s, was ended early and left no model: no artifact_uri", optimum.trial)
            uri = None
        result = {**experiment.read_result(obj, self.decoder(obj), uri), "partial": False}
        self.log.info(
            "Best trial %s: parameters %s, metrics %s",
            result["trial"],
            result["parameters"],
            result["metrics"],
        )
        return result

    async def _check_succeeded_trials(self, client: KubeflowClient, obj: JSON) -> None:
        counts, wanted = experiment.read_counts(obj), int(self.min_succeeded_trials)
        if counts["succeeded"] < wanted:
            text = (
                f"Experiment {obj['metadata']['name']} has {counts['succeeded']} succeeded trials of "
                f"{counts['trials']}, and `min_succeeded_trials` is {wanted}"
            )
            raise ExperimentFailedError("\n  ".join([text, *await self.read_reasons(client, obj)]))

    async def rescue(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> JSON | None:
        from airflow_llmtune.triggers.base import WAIT_TIMEOUT

        policy = self.on_timeout if outcome.reason == WAIT_TIMEOUT else self.on_failure
        if policy != USE_BEST:
            return None
        try:
            result = await self.read_result(client, obj)
        except OutcomeError as error:
            self.log.warning("There is no best trial to use: %s", error)
            return None
        self.log.warning("The best trial so far is used, although: %s", outcome.message)
        return {**result, "partial": True}

    async def wrap_up(self, client: KubeflowClient, obj: JSON) -> None:
        try:
            await self._wrap_up(client, obj)
        except KubernetesApiError as error:
            # Neither a result nor a deletion is to wait for what is only told.
            self.log.warning("The trials of %s could not be read or stopped: %s", obj["metadata"]["name"], error)

    async def _wrap_up(self, client: KubeflowClient, obj: JSON) -> None:
        from airflow_llmtune.hooks.experiment_diagnosis import read_trials
        from airflow_llmtune.resources.tuning_progress import read_end

        trials = await read_trials(client, obj)
        self._progress = read_end(obj, trials)
        self.log.info("Experiment %s got as far as: %s", obj["metadata"]["name"], self._progress["best"])
        # Katib itself lets trials go on after their Experiment has finished.
        if self.stop_leftovers and self.read_outcome(obj).finished:
            for trial in trials:
                await self._stop_trial(client, trial)

    async def _stop_trial(self, client: KubeflowClient, trial: JSON) -> None:
        metadata = trial["metadata"]
        if not experiment.read_trial(trial)["finished"]:
            self.log.info("Stopping trial %s, which still runs", metadata["name"])
            await client.delete(experiment.TRIAL_KIND, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    def tell_progress(self) -> None:
        from airflow_llmtune.triggers.progress import XCOM_KEY

        if self._progress is not None:
            self._ti.xcom_push(XCOM_KEY, self._progress)

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        metadata = obj["metadata"]
        head = f"Experiment {metadata['name']} in namespace {metadata['namespace']} failed: {outcome.message}"
        return ExperimentFailedError("\n  ".join([head, *await self.read_reasons(client, obj)]))
