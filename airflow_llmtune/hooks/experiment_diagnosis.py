"""Why an Experiment failed or does not get on: its suggestion, its trials, their jobs, and the pods of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.diagnosis import Diagnosis, read_pods
from airflow_llmtune.resources import experiment, job_kinds, pod, suggestion, trial
from airflow_llmtune.resources.cause import gist
from airflow_llmtune.resources.meta import Outcome, ResourceKind, path
from airflow_llmtune.resources.trial import TRIAL_LABEL
from airflow_llmtune.resources.tuning_progress import EXPERIMENT_LABEL

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["explain_experiment", "read_trials"]

JSON = dict[str, Any]
# More trials than these say the same thing again.
EXPLAINED_TRIALS = 3
# So many names fit into the address of a request.
MOST_OPEN = 50
# Whose own reason is read; of a job of another kind its pods and events are.
_JOBS: Mapping[str, ResourceKind] = {kind.kind: kind for kind in job_kinds.READERS}


def _trial_of(item: JSON) -> str:
    name: str = item["metadata"]["labels"][TRIAL_LABEL]
    return name


async def read_trials(client: KubeflowClient, obj: JSON) -> list[JSON]:
    """Return the Trials of an Experiment, oldest first."""
    metadata = obj["metadata"]
    selector = f"{EXPERIMENT_LABEL}={metadata['name']}"
    trials, _ = await client.list_all(experiment.TRIAL_KIND, metadata["namespace"], label_selector=selector)
    return sorted(trials, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))


async def explain_experiment(client: KubeflowClient, obj: JSON) -> list[str]:
    """Say why an Experiment failed, or what it does; each line is indented below what it belongs to."""
    return await _ExperimentDiagnosis(client, obj).explain()


class _ExperimentDiagnosis:
    def __init__(self, client: KubeflowClient, obj: JSON) -> None:
        self._client = client
        self._obj = obj
        self._namespace, self._name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        self._ended = experiment.read_outcome(obj).finished
        self._diagnosis = Diagnosis(client, self._namespace, self._name)

    async def explain(self) -> list[str]:
        if not path(self._obj, "status", "conditions"):
            return ["Katib has not begun it: does its controller run?", *await self._diagnosis.complaints(self._name)]
        lines = await self._explain_suggestion()
        try:
            trials = await read_trials(self._client, self._obj)
        except KubernetesApiError as error:
            return [*lines, f"its trials could not be read: {error}"]
        ended = [one for one in trials if trial.read_trial(one)["failed"] or trial.read_missing_metric(one)]
        lines += await self._tell_trials(ended, "failed", self._explain_ended)
        open_ = [] if self._ended else [one for one in trials if not trial.read_trial(one)["finished"]]
        lines += await self._tell_trials(await self._troubled_first(open_), "unfinished", self._explain_open)
        if self._ended and lines:
            return lines
        # Katib's own errors, such as rights that its controller lacks, or what the suggestion's service answered.
        return [*lines, *await self._diagnosis.complaints(self._name, below=not lines)]

    async def _explain_suggestion(self) -> list[str]:
        try:
            found = await self._client.find(suggestion.KIND, self._namespace, self._name)
        except KubernetesApiError as error:
            return [f"its suggestion could not be read: {error}"]
        trouble = None if found is None else suggestion.read_trouble(found, ended=self._ended)
        if found is None or trouble is None:
            return []
        service = f"{self._name}-{path(found, 'spec', 'algorithm', 'algorithmName')}"
        pods = suggestion.pod_selector(self._name)
        reasons = await self._diagnosis.explain(service, pods, ended=self._ended)
        return [trouble, *(f"  {reason}" for reason in reasons)]

    async def _troubled_first(self, trials: Sequence[JSON]) -> list[JSON]:
        """Put those first whose pods are not well, or are not there: not all trials are told."""
        names = ",".join(one["metadata"]["name"] for one in trials[:MOST_OPEN])
        pods: list[JSON] = []
        if len(trials) > EXPLAINED_TRIALS:
            with suppress(KubernetesApiError):  # It is told of each that is explained.
                pods = await read_pods(self._client, self._namespace, f"{TRIAL_LABEL} in ({names})")
        bad = {_trial_of(item) for item in pods if pod.read_failure(item) is not None}
        well = {_trial_of(item) for item in pods} - bad
        return sorted(trials, key=lambda one: one["metadata"]["name"] in well)

    async def _tell_trials(
        self, trials: Sequence[JSON], state: str, explain: Callable[[JSON], Awaitable[list[str]]]
    ) -> list[str]:
        """Tell each cause once: trials that fail for the same one are told so."""
        lines: list[str] = []
        seen: set[str] = set()
        for one in trials[:EXPLAINED_TRIALS]:
            read = trial.read_trial(one)
            reasons = await explain(one)
            lines.append(f"trial {read['name']} {read['parameters']}: {read['message'] or read['phase']}")
            cause = gist("\n".join(reasons), self._name)
            told = ["for the same reason"] if reasons and cause in seen else reasons
            lines += [f"  {reason}" for reason in told]
            seen.add(cause)
        if len(trials) > EXPLAINED_TRIALS:
            lines.append(f"and {len(trials) - EXPLAINED_TRIALS} more {state} trials")
        return lines

    async def _explain_ended(self, one: JSON) -> list[str]:
        name = one["metadata"]["name"]
        if (missing := trial.read_missing_metric(one)) is not None:
            return [missing, *await self._diagnosis.last_words(f"{TRIAL_LABEL}={name}")]
        return await self._diagnosis.explain(name, f"{TRIAL_LABEL}={name}", ended=True)

    async def _explain_open(self, one: JSON) -> list[str]:
        name = one["metadata"]["name"]
        reasons = await self._diagnosis.explain(name, f"{TRIAL_LABEL}={name}", ended=False)
        return [*await self._explain_job(name), *reasons]

    async def _explain_job(self, name: str) -> list[str]:
        """Tell what the job says itself of why it does not run, such as that it is suspended in a queue."""
        kind = _JOBS.get(path(self._obj, "spec", "trialTemplate", "trialSpec", "kind"))
        if kind is None:
            return []
        try:
            found = await self._client.find(kind, self._namespace, name)
        except KubernetesApiError as error:
            return [f"its {kind.kind} could not be read: {error}"]
        outcome = Outcome("Pending", "", "it is not there") if found is None else job_kinds.READERS[kind](found)
        says = ": ".join(text for text in (outcome.reason, outcome.message) if text)
        return [f"{kind.kind} {name}: {says}"] if says and outcome.phase != "Running" else []
