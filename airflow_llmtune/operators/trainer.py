"""Train: any TrainJob or PyTorchJob, or the fine-tune of an LLM with the values that a tuning found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import OutcomeError, TrainingFailedError
from airflow_llmtune.operators.base import KubeflowOperator
from airflow_llmtune.operators.manifest import load_manifest_file, read_manifest
from airflow_llmtune.operators.unchanged import SkippingOperator
from airflow_llmtune.resources import (
    pytorch_job,
    train_job,
    train_job_preflight,
    trainer_spec,
    trial_template,
)
from airflow_llmtune.resources.defaults import TRAINER_IMAGE
from airflow_llmtune.resources.fingerprint import evaluation_fingerprint, training_fingerprint
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["EvaluateLLMOperator", "FineTuneLLMOperator", "PyTorchJobOperator", "TrainJobOperator"]

JSON = dict[str, Any]
# What of the trainer's summary is the task's result.
_TOLD = ("metrics", "artifact_uri", "samples", "manifest")


class TrainingLifecycle(KubeflowOperator):
    """What all of them share: a training job's result and failure are told by its pods."""

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        """Return what the trainer wrote into its pod's termination message; a pod of other code has written none."""
        from airflow_llmtune.hooks.training_result import log_remarks, read_training_result

        metadata = obj["metadata"]
        result: JSON = {
            "job": metadata["name"],
            "namespace": metadata["namespace"],
            # No other kind has such metrics in its status.
            "metrics": train_job.read_metrics(obj),
            "artifact_uri": None,
        }
        selector = self.trigger_class.pod_selector(metadata["name"])
        told = await read_training_result(client, metadata["namespace"], selector)
        log_remarks(self.log, metadata["name"], told)
        return result | {key: told[key] for key in _TOLD if key in told}

    async def explain_failure(self, client: KubeflowClient, obj: JSON, outcome: Outcome) -> OutcomeError:
        metadata = obj["metadata"]
        where = f"{self.kind.kind} {metadata['name']} in namespace {metadata['namespace']}"
        lines = [f"{where} failed: {outcome.reason}: {outcome.message}", *await self.read_reasons(client, obj)]
        return TrainingFailedError("\n  ".join(lines))


class TrainJobOperator(TrainingLifecycle):
    """
    Runs any TrainJob of Kubeflow Trainer v2 (``trainer.kubeflow.org/v1alpha1``) to its end.

    How often a crash is repeated, and how long a finished pod stays, is the runtime's to say, not the TrainJob's.

    XCom: as :class:`PyTorchJobOperator`; ``metrics`` are those of the termination message, else the latest that the
    trainer reported to Kubeflow Trainer (``status.trainerStatus``).

    :param train_job: the TrainJob: a dict, YAML or JSON text, the path of a ``.yaml``/``.yml``/``.json`` file beside
        the DAG, or a model object. All of it is templated, save model objects. ``metadata.name`` is set by the
        operator. The API server refuses fields that its version of Kubeflow Trainer does not know.
    """

    template_fields: Sequence[str] = (*KubeflowOperator.template_fields, "train_job")
    template_fields_renderers = {"train_job": "yaml"}
    takes_manifest = True

    def __init__(self, *, train_job: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.train_job = train_job

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        from airflow_llmtune.triggers.trainer import TrainJobTrigger

        return TrainJobTrigger

    def resolve_template_files(self) -> None:
        super().resolve_template_files()
        self.train_job = load_manifest_file(self, self.train_job)

    def build_manifest(self, problems: Problems) -> JSON:
        return read_manifest("train_job", self.train_job, train_job_preflight.check_manifest, problems)


class PyTorchJobOperator(TrainingLifecycle):
    """
    Runs any PyTorchJob (``kubeflow.org/v1``) to its end.

    XCom: ``{"job", "namespace", "metrics", "artifact_uri"}``; the last two, and ``samples``, are filled when the
    container writes a result such as the trainer image's to its termination message.

    :param pytorch_job: the PyTorchJob: a dict, YAML or JSON text, the path of a ``.yaml``/``.yml``/``.json`` file
        beside the DAG, or a model object. All of it is templated, save model objects. ``metadata.name`` is set by
        the operator.
    """

    template_fields: Sequence[str] = (*KubeflowOperator.template_fields, "pytorch_job")
    template_fields_renderers = {"pytorch_job": "yaml"}
    takes_manifest = True

    def __init__(self, *, pytorch_job: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pytorch_job = pytorch_job

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        from airflow_llmtune.triggers.trainer import PyTorchJobTrigger

        return PyTorchJobTrigger

    def resolve_template_files(self) -> None:
        super().resolve_template_files()
        self.pytorch_job = load_manifest_file(self, self.pytorch_job)

    def build_manifest(self, problems: Problems) -> JSON:
        return read_manifest("pytorch_job", self.pytorch_job, pytorch_job.check_manifest, problems)


class TrainerOperator(SkippingOperator, TrainingLifecycle):
    """
    Runs the trainer as a Job or, with several nodes, a PyTorchJob or a TrainJob; the two below say what for.

    ``model_asset``, ``skip_if_unchanged`` and ``version_options``:
    :class:`~airflow_llmtune.operators.unchanged.SkippingOperator`; ``cache``:
    :class:`~airflow_llmtune.operators.cache.CachingOperator`; ``hub_conn_id`` and ``aws_conn_id``:
    :class:`~airflow_llmtune.operators.credentials.CredentialsOperator`.

    :param model: base model, in the forms of :class:`~airflow_llmtune.operators.katib.KatibTuneLLMOperator`.
    :param dataset: data set, likewise.
    :param trainer_args: further settings of the trainer.
    :param resources_per_node: requests and limits of each pod, such as ``{"cpu": 8, "memory": "32Gi", "gpu": 1}``.
    :param image: trainer image.
    :param env: environment of the trainer, as for
        :class:`~airflow_llmtune.operators.katib.KatibTuneLLMOperator`.
    :param job_options: as for :class:`~airflow_llmtune.operators.katib.KatibTuneLLMOperator`.
    """

    template_fields: Sequence[str] = (
        *SkippingOperator.template_fields,
        "model",
        "dataset",
        "trainer_args",
        "resources_per_node",
        "image",
        "env",
        "job_options",
    )
    template_fields_renderers = {"hyperparameters": "json", "trainer_args": "json", "job_options": "json"}

    def __init__(
        self,
        *,
        model: str,
        dataset: str,
        trainer_args: Mapping[str, Any] | None = None,
        resources_per_node: Mapping[str, Any] | None = None,
        image: str = TRAINER_IMAGE,
        env: Mapping[str, Any] | None = None,
        job_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.dataset = dataset
        self.trainer_args = trainer_args
        self.resources_per_node = resources_per_node
        self.image = image
        self.env = env
        self.job_options = job_options

    @property
    def trigger_class(self) -> type[WaitTrigger]:
        from airflow_llmtune.triggers.trainer import JobTrigger, PyTorchJobTrigger, TrainJobTrigger

        triggers = {trigger.kind.kind: trigger for trigger in (JobTrigger, PyTorchJobTrigger, TrainJobTrigger)}
        return triggers[self.read_trainer(Problems()).job_kind]

    def read_trainer(self, problems: Problems, **own: Any) -> trial_template.TrainerSpec:
        """
        Check what all runs of the trainer have in common.

        :param problems: takes every mistake.
        :param own: what this kind of run adds.
        """
        return trial_template.TrainerSpec.from_args(
            model=self.model,
            dataset=self.dataset,
            image=self.image,
            trainer_args=self.trainer_args,
            resources=self.resources_per_node,
            resources_argument="resources_per_node",
            env=self.env,
            cache=self.cache,
            problems=problems,
            **own,
            **trial_template.read_options("job_options", self.job_options, problems),
        )

    def job_of(self, trainer: trial_template.TrainerSpec, hyperparameters: Any, problems: Problems) -> JSON:
        """
        Build the job.

        :param trainer: what ``read_trainer`` returned.
        :param hyperparameters: settings that a tuning chose.
        :param problems: takes every mistake.
        """
        equipped = trainer.with_credentials(self.read_credentials(problems), problems)
        annotations = {**self.input_annotations(), **self.cache_annotations(trainer, trainer.num_nodes, problems)}
        return trial_template.training_manifest(equipped, "", "", {}, annotations, hyperparameters, problems)


class FineTuneLLMOperator(TrainerOperator):
    """
    Fine-tunes an LLM with given hyperparameters on the full data and leaves what it trained at
    ``output_uri``: the adapter, or the model.

    It runs the same trainer as :class:`~airflow_llmtune.operators.katib.KatibTuneLLMOperator`. Further arguments:
    :class:`TrainerOperator`.

    XCom: ``{"job", "namespace", "metrics", "artifact_uri", "samples", "manifest"}``, each key also on its own.

    :param output_uri: where what was trained goes: ``s3://bucket/prefix``, ``pvc://claim/path``, or an absolute path.
    :param hyperparameters: trainer settings to take as they are, such as ``tune.output["parameters"]``.
    :param checkpoint_steps: save a checkpoint below ``output_uri`` every so many steps, from which a retry of the
        task goes on; it is removed once the result is there. The ``output_uri`` must not change from try to try.
    """

    template_fields: Sequence[str] = (
        *TrainerOperator.template_fields,
        "output_uri",
        "hyperparameters",
        "checkpoint_steps",
    )
    kept_as = "trainings"

    def __init__(
        self,
        *,
        output_uri: str,
        hyperparameters: Mapping[str, Any] | None = None,
        checkpoint_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_uri = output_uri
        self.hyperparameters = hyperparameters
        # A missing XCom renders to None, which must not train with defaults.
        self._takes_hyperparameters = hyperparameters is not None
        self.checkpoint_steps = checkpoint_steps

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        # The trainer knows its output by the path at which a volume is mounted; the next task wants its address.
        return {**await super().read_result(client, obj), "artifact_uri": self.output_uri}

    def build_manifest(self, problems: Problems) -> JSON:
        if self.hyperparameters is None and self._takes_hyperparameters:
            rule = "was given and has no value now"
            problems.add("hyperparameters", None, rule, "check that the upstream task returns that key")
        output_uri: Any = self.output_uri  # whatever an upstream task returned
        if output_uri is None:
            fix = "say where it goes; what was trained would be lost"
            problems.add("output_uri", None, "has no value", fix)
        trainer = self.read_trainer(problems, output_uri=self.output_uri, checkpoint_steps=self.checkpoint_steps)
        return self.job_of(trainer, self.hyperparameters, problems)

    def fingerprints(self, versions: Mapping[str, str]) -> dict[str, str]:
        # Where an adapter goes, and how often it is saved on the way, does not change it.
        trainer = self.read_trainer(Problems(), output_uri=self.output_uri)
        chosen = trainer_spec.read_flags("hyperparameters", self.hyperparameters, Problems(), image=self.image)
        adapter = None if trainer.output is None else trainer.output.flag
        return {
            self.kept_as: training_fingerprint(trainer, chosen, versions),
            # A training ends with this evaluation.
            EvaluateLLMOperator.kept_as: evaluation_fingerprint(trainer, chosen, adapter, versions),
        }


class EvaluateLLMOperator(TrainerOperator):
    """
    Evaluates an adapter, or the base model without one, on the rows that a fine-tune with the same settings would take.

    So the loss of last week's adapter on this week's data compares with that of the new one: both results carry a
    fingerprint of the evaluation rows, ``manifest["evaluation"]["fingerprint"]``.

    XCom: as :class:`FineTuneLLMOperator`, without samples; ``artifact_uri`` is the adapter. ``trainer_args`` takes only
    what an evaluation depends on, such as ``dataset_test_split``, ``max_length`` and ``dtype``. Further arguments:
    :class:`TrainerOperator`.

    :param adapter: what a training left, an adapter or a model, in the forms of ``model``; None or empty: the base
        model itself.
    """

    template_fields: Sequence[str] = (*TrainerOperator.template_fields, "adapter")
    kept_as = "evaluations"

    def __init__(self, *, adapter: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.adapter = adapter

    def read_sources(self) -> dict[str, str | None]:
        return {"model": self.model, "dataset": self.dataset, "adapter": self.adapter}

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        return {**await super().read_result(client, obj), "artifact_uri": self.adapter or None}

    def build_manifest(self, problems: Problems) -> JSON:
        return self.job_of(self.read_trainer(problems, evaluates=True, adapter=self.adapter), None, problems)

    def fingerprints(self, versions: Mapping[str, str]) -> dict[str, str]:
        trainer = self.read_trainer(Problems(), adapter=self.adapter)
        return {self.kept_as: evaluation_fingerprint(trainer, {}, trainer.flags.get("adapter"), versions)}
