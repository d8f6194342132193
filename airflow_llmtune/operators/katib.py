"""Tune: any Katib Experiment, or the one that tunes an LLM fine-tune."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import ExperimentFailedError, KubernetesApiError
from airflow_llmtune.operators.base import KubeflowOperator
from airflow_llmtune.operators.experiment_lifecycle import ExperimentLifecycle
from airflow_llmtune.operators.manifest import load_manifest_file, read_manifest
from airflow_llmtune.operators.model_asset import ModelState
from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.operators.unchanged import SkippingOperator
from airflow_llmtune.resources import (
    early_stopping,
    experiment,
    train_job,
    trainer_metrics,
    trial_template,
    warm_start,
)
from airflow_llmtune.resources.defaults import TRAINER_IMAGE, WARM_START_SCALE
from airflow_llmtune.resources.fingerprint import tuning_fingerprint
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.trial import TRIAL_LABEL

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["KatibExperimentOperator", "KatibTuneLLMOperator"]

JSON = dict[str, Any]


class KatibExperimentOperator(ExperimentLifecycle):
    """
    Runs any Katib Experiment and returns its best hyperparameters.

    XCom: ``{"parameters", "metrics", "trial", "experiment", "namespace", "counts", "artifact_uri"}``, each key also on
    its own, so that ``tune.output["parameters"]`` works. Parameters are typed by their ``parameterType``.

    :param experiment: the Experiment: a dict, YAML or JSON text, the path of a ``.yaml``/``.yml``/``.json`` file
        beside the DAG, or a model object of ``kubeflow_katib_api`` or ``kubeflow-katib``. All of it is templated,
        save model objects. ``metadata.name`` is set by the operator.
    """

    template_fields: Sequence[str] = (*KubeflowOperator.template_fields, "experiment")
    template_fields_renderers = {"experiment": "yaml"}
    takes_manifest = True

    def __init__(self, *, experiment: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.experiment = experiment

    def resolve_template_files(self) -> None:
        super().resolve_template_files()
        self.experiment = load_manifest_file(self, self.experiment)

    def build_manifest(self, problems: Problems) -> JSON:
        return read_manifest("experiment", self.experiment, experiment.check_manifest, problems)


class KatibTuneLLMOperator(SkippingOperator, ExperimentLifecycle):
    """
    Tunes the fine-tune of an LLM: each trial is one run of the trainer image with other hyperparameters.

    XCom: as :class:`KatibExperimentOperator`; ``parameters`` has the types of the search space, ``artifact_uri`` is
    where the best trial left what it trained when ``output_uri`` is given, and ``manifest`` what its trainer tells of
    it, or None when its pod is gone. ``model_asset``, ``skip_if_unchanged`` and ``version_options``:
    :class:`~airflow_llmtune.operators.unchanged.SkippingOperator`; ``cache``:
    :class:`~airflow_llmtune.operators.cache.CachingOperator`; ``hub_conn_id`` and ``aws_conn_id``:
    :class:`~airflow_llmtune.operators.credentials.CredentialsOperator`.

    :param model: base model: ``org/name`` or ``hf://org/name[@revision]``, ``s3://bucket/prefix``,
        ``pvc://claim/path``, or an absolute path that exists in the pod.
    :param dataset: data set, in the same forms.
    :param parameters: search space: name of a trainer setting to a dict made by
        :mod:`airflow_llmtune.resources.search_space`, such as ``log_uniform(1e-5, 1e-2)``.
    :param objective_metric_name: metric to optimise, such as ``eval_loss``; the trainer's are in
        :data:`airflow_llmtune.resources.trainer_metrics.OBJECTIVES`, by task.
    :param objective_type: ``minimize`` or ``maximize``, as the metric is better.
    :param objective_goal: stop as soon as a trial reaches this value.
    :param additional_metric_names: metrics to record beside the objective.
    :param algorithm_name: ``random``, ``grid``, ``tpe``, or another that the cluster's Katib knows.
    :param algorithm_settings: settings of the algorithm.
    :param max_trial_count: trials in all.
    :param parallel_trial_count: trials at the same time.
    :param max_failed_trial_count: give up after this many failed trials; default 3, or all when there are fewer.
    :param early_stopping: end a trial that is worse than those before it were at its age, such as
        ``{"algorithm_name": "medianstop", "min_trials_required": 3, "start_step": 4}``; ``start_step`` counts reports
        of the objective, of which there are several with ``trainer_args={"eval_steps": 50}``.
    :param trainer_args: fixed settings of the trainer, such as ``{"max_steps": 100}``; with ``"metrics_push": True``
        trials report their metrics to Katib's DB manager instead of having their output read.
    :param checkpoint_steps: save a checkpoint at ``checkpoint_uri`` every so many steps, from which a trial that
        differs in ``max_steps`` only goes on: for ``hyperband``.
    :param checkpoint_uri: where all trials save, in the forms of ``output_uri``; nobody removes what is there.
    :param output_uri: where each trial leaves what it trained: the adapter, or the model, in ``<Experiment>/<trial>``
        below it; default: nowhere.
    :param resources_per_trial: requests and limits of each pod, such as ``{"cpu": 4, "memory": "16Gi", "gpu": 1}``.
    :param image: trainer image.
    :param env: environment of the trainer: name to text, or to an EnvVarSource such as
        ``{"secretKeyRef": {"name": "hub", "key": "token"}}``. Secrets are references, never text. A setting given
        here goes before that of a connection; a secret of both is a mistake.
    :param job_options: how a trial's job runs: ``job_kind`` (``Job``, ``PyTorchJob`` or ``TrainJob``), ``num_nodes``,
        ``num_procs_per_node`` (default: one for each GPU of the pod, which takes no other number, else 1),
        ``service_account_name``, ``active_deadline_seconds``, ``ttl_seconds_after_finished``, ``pod_template`` (merged
        over the pod that the operator makes); for a TrainJob also ``runtime_ref`` (a ClusterTrainingRuntime's name, or
        ``{"kind": "TrainingRuntime", "name": ...}``) and ``kubeflow_trainer_version`` (the cluster's, such as
        ``"2.1"``).
    :param warm_start: where to search: around the ``"champion"`` of ``model_asset`` (without one, everywhere), around
        the parameters of an earlier result, such as ``{"learning_rate": 0.0003}``, or around the best trial of a
        finished Experiment of this name in the same namespace.
    :param warm_start_scale: how much of each range is searched then, from above 0 to 1.
    """

    template_fields: Sequence[str] = (
        *SkippingOperator.template_fields,
        "model",
        "dataset",
        "parameters",
        "objective_metric_name",
        "objective_type",
        "objective_goal",
        "additional_metric_names",
        "algorithm_name",
        "algorithm_settings",
        "max_trial_count",
        "parallel_trial_count",
        "max_failed_trial_count",
        "early_stopping",
        "trainer_args",
        "checkpoint_steps",
        "checkpoint_uri",
        "output_uri",
        "resources_per_trial",
        "image",
        "env",
        "job_options",
        "warm_start",
        "warm_start_scale",
    )
    kept_as = "tunings"
    template_fields_renderers = dict.fromkeys(("parameters", "early_stopping", "trainer_args", "job_options"), "json")

    def __init__(
        self,
        *,
        model: str,
        dataset: str,
        parameters: Mapping[str, Any],
        objective_metric_name: str = "eval_loss",
        objective_type: str = "minimize",
        objective_goal: float | str | None = None,
        additional_metric_names: Sequence[str] = (),
        algorithm_name: str = "tpe",
        algorithm_settings: Mapping[str, Any] | None = None,
        max_trial_count: int | str = 12,
        parallel_trial_count: int | str = 2,
        max_failed_trial_count: int | str | None = None,
        early_stopping: Mapping[str, Any] | None = None,
        trainer_args: Mapping[str, Any] | None = None,
        checkpoint_steps: int | str | None = None,
        checkpoint_uri: str | None = None,
        output_uri: str | None = None,
        resources_per_trial: Mapping[str, Any] | None = None,
        image: str = TRAINER_IMAGE,
        env: Mapping[str, Any] | None = None,
        job_options: Mapping[str, Any] | None = None,
        warm_start: str | Mapping[str, Any] | None = None,
        warm_start_scale: float | str = WARM_START_SCALE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.dataset = dataset
        self.parameters = parameters
        self.objective_metric_name = objective_metric_name
        self.objective_type = objective_type
        self.objective_goal = objective_goal
        self.additional_metric_names = additional_metric_names
        self.algorithm_name = algorithm_name
        self.algorithm_settings = algorithm_settings
        self.max_trial_count = max_trial_count
        self.parallel_trial_count = parallel_trial_count
        self.max_failed_trial_count = max_failed_trial_count
        self.early_stopping = early_stopping
        self.trainer_args = trainer_args
        self.checkpoint_steps = checkpoint_steps
        self.checkpoint_uri = checkpoint_uri
        self.output_uri = output_uri
        self.resources_per_trial = resources_per_trial
        self.image = image
        self.env = env
        self.job_options = job_options
        self.warm_start = warm_start
        self.warm_start_scale = warm_start_scale
        # A missing XCom renders to None, which must not search everywhere without a word.
        self._starts_warm = warm_start is not None
        # Where the search starts from; found when the task runs.
        self._point: Mapping[str, Any] | None = None

    def prepare(self, context: Context) -> None:
        if isinstance(self.warm_start, Mapping):
            self._point = self.warm_start
        elif self.warm_start == warm_start.CHAMPION:
            self._point = self._champions_point(context)
        elif self.warm_start and isinstance(self.warm_start, str):
            self._checked_manifest()  # All mistakes come before the cluster is asked for a name.
            self._point = asyncio.run(self._best_of(self.warm_start))

    def fingerprints(self, versions: Mapping[str, str]) -> dict[str, str]:
        # Of the whole space: a new champion alone is no reason to search again.
        return {self.kept_as: tuning_fingerprint(self._spec(Problems()), self._trainer(Problems()), versions)}

    def build_manifest(self, problems: Problems) -> JSON:
        spec = self._spec(problems)
        trainer = self._trainer(problems).with_credentials(self.read_credentials(problems), problems)
        trainer_metrics.check_metrics(spec, trainer, problems)
        early_stopping.check_reports(spec.early_stopping, spec.objective_metric_name, trainer, problems)
        scale = warm_start.check(
            self.warm_start,
            self.warm_start_scale,
            spec.space,
            problems,
            was_given=self._starts_warm,
            remembers=self.model_asset is not None,
        )
        template = trial_template.trial_template(trainer, spec.space, problems)
        pods = spec.parallel_trial_count * trainer.num_nodes
        annotations = {**self.input_annotations(), **self.cache_annotations(trainer, pods, problems)}
        if self._point is not None and scale is not None and not problems.errors:
            spec, notes = warm_start.start_from(spec, self._point, scale)
            for note in notes:
                self.log.info("Warm start: %s", note)
        return spec.to_manifest("", "", {}, annotations, template, pushed=trainer.pushes_metrics)

    def _champions_point(self, context: Context) -> Mapping[str, Any] | None:
        # Without an asset it is a mistake, told with the others.
        champion = None if self.model_asset is None else ModelState(context, self.model_asset).champion()
        if champion is None:
            self.log.info("There is no champion yet: the whole space is searched")
            return None
        point: Mapping[str, Any] = champion["parameters"]
        self.log.info("Searching around the champion of run %s: %s", champion["lineage"]["run_id"], point)
        return point

    async def _best_of(self, name: str) -> Mapping[str, Any]:
        """Return the best parameters of an Experiment that somebody ran before."""
        namespace = self.namespace or await self.hook.default_namespace()
        async with self.hook.connect() as client:
            obj = await client.find(experiment.KIND, namespace, name)
        optimum = None if obj is None else experiment.read_optimum(obj)
        if obj is None or optimum is None:
            problems = Problems()
            rule = f"is no Experiment with a best trial in namespace {namespace}"
            problems.add("warm_start", name, rule, "give the name of a finished one, or the parameters themselves")
            fail_on(self, problems)
        assert obj is not None, "else raised"
        assert optimum is not None, "else raised"
        point = experiment.search_space_of(obj)(optimum.assignments)
        self.log.info("Searching around %s, the best of Experiment %s", point, name)
        return point

    def _spec(self, problems: Problems) -> experiment.ExperimentSpec:
        return experiment.ExperimentSpec.from_args(
            parameters=SearchSpace.from_json(self.parameters, problems),
            objective_metric_name=self.objective_metric_name,
            objective_type=self.objective_type,
            objective_goal=self.objective_goal,
            additional_metric_names=self.additional_metric_names,
            algorithm_name=self.algorithm_name,
            algorithm_settings=self.algorithm_settings,
            max_trial_count=self.max_trial_count,
            parallel_trial_count=self.parallel_trial_count,
            max_failed_trial_count=self.max_failed_trial_count,
            early_stopping=self.early_stopping,
            problems=problems,
        )

    def _trainer(self, problems: Problems) -> trial_template.TrainerSpec:
        return trial_template.TrainerSpec.from_args(
            model=self.model,
            dataset=self.dataset,
            image=self.image,
            trainer_args=self.trainer_args,
            resources=self.resources_per_trial,
            resources_argument="resources_per_trial",
            env=self.env,
            output_uri=self.output_uri,
            cache=self.cache,
            checkpoint_steps=self.checkpoint_steps,
            checkpoint_uri=self.checkpoint_uri,
            shares_checkpoints=True,
            problems=problems,
            **trial_template.read_options("job_options", self.job_options, problems),
        )

    async def rehearse(self, client: KubeflowClient, namespace: str, manifest: JSON) -> None:
        """Have the API server judge a TrainJob as a trial: of what it does not know, Katib lets it drop all."""
        trial = manifest["spec"]["trialTemplate"]["trialSpec"]
        if trial["kind"] != train_job.KIND.kind:
            return
        try:
            named = {**trial, "metadata": {"name": manifest["metadata"]["name"]}}
            await client.create(train_job.KIND, namespace, named, dry_run=True)
        except KubernetesApiError as error:
            # Katib creates it, with its own rights; ours need not reach so far. A webhook's refusal is a 403 as well.
            if "cannot create resource" not in str(error):
                raise

    def decoder(self, obj: JSON) -> Callable[[Mapping[str, str]], JSON]:  # noqa: ARG002 (the search space knows more)
        return SearchSpace.from_json(self.parameters, Problems()).decode

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        result = await super().read_result(client, obj)
        told = await self._read_training(client, result)
        # The best one has diverged only when all have. A loss tells that also when the pod is gone.
        if told.get("diverged") or abs(result["metrics"][self.objective_metric_name]) >= trial_template.DIVERGED_LOSS:
            raise ExperimentFailedError(
                f"Experiment {result['experiment']} has no usable trial: all of them diverged. "
                f"Fix: lower the range of `parameters.learning_rate`, or check the data set"
            )
        return {**result, "manifest": told.get("manifest")}

    def artifact_uri(self, name: str, trial: str) -> str | None:
        return None if self.output_uri is None else f"{self.output_uri.rstrip('/')}/{name}/{trial}"

    async def _read_training(self, client: KubeflowClient, result: JSON) -> JSON:
        """Return what the best trial's pod has told of its training; nothing when it is gone, or may not be read."""
        from airflow_llmtune.hooks.training_result import log_remarks, read_training_result

        try:
            told = await read_training_result(client, result["namespace"], f"{TRIAL_LABEL}={result['trial']}")
        except KubernetesApiError as error:
            self.log.warning("What trial %s tells of its training could not be read: %s", result["trial"], error)
            return {}
        log_remarks(self.log, result["trial"], told)
        return told
