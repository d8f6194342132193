"""Deploy: any InferenceService, an LLM with or without an adapter, and the share of requests that a canary gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.operators.deployment import DeploymentOperator
from airflow_llmtune.operators.manifest import load_manifest_file, read_manifest
from airflow_llmtune.resources import canary, inference_service, llm_inference_service, serving_spec, smoke_test
from airflow_llmtune.resources.meta import path, whole
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.rollback_record import whole_manifest

if TYPE_CHECKING:
    from airflow_llmtune.resources.smoke_test import SmokeTest
    from airflow_llmtune.triggers.kserve import InferenceServiceTrigger

__all__ = ["CanaryTrafficOperator", "DeployLLMOperator", "InferenceServiceOperator"]

JSON = dict[str, Any]


class InferenceServiceOperator(DeploymentOperator):
    """
    Applies any InferenceService of KServe (``serving.kserve.io/v1beta1``) and waits until it serves.

    XCom: ``{"name", "namespace", "url", "address_url", "revision", "served_model_name", "deployment_mode",
    "smoke_test"}``; see :class:`~airflow_llmtune.operators.deployment.DeploymentOperator` for the other arguments. The
    smoke test here needs ``model``, the name to ask for, and a runtime that serves OpenAI's API.

    :param inference_service: the InferenceService: a dict, YAML or JSON text, the path of a ``.yaml``, ``.yml`` or
        ``.json`` file beside the DAG, or a model object. All of it is templated, save model objects. It keeps its
        name; a label of the model's revision is added to each component.
    """

    template_fields: Sequence[str] = (*DeploymentOperator.template_fields, "inference_service")
    template_fields_renderers = {"inference_service": "yaml"}

    def __init__(self, *, inference_service: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inference_service = inference_service

    def resolve_template_files(self) -> None:
        super().resolve_template_files()
        self.inference_service = load_manifest_file(self, self.inference_service)

    def build_manifest(self, problems: Problems) -> JSON:
        check = inference_service.check_manifest
        return read_manifest("inference_service", self.inference_service, check, problems)

    def adapt(self, manifest: JSON, current: JSON | None, problems: Problems, *, goes_on: bool) -> JSON:  # noqa: ARG002
        return {**manifest, "spec": canary.kept_name(current, manifest["spec"])}

    def read_smoke_test(self, manifest: JSON, problems: Problems) -> SmokeTest | None:
        model_format = path(manifest, "spec", "predictor", "model", "modelFormat", "name")
        return smoke_test.SmokeTest.read(self.smoke_test, None, smoke_test.ROOTS.get(str(model_format)), problems)


class DeployLLMOperator(DeploymentOperator):
    """
    Serves an LLM, or an LLM with a LoRA adapter, by KServe and waits until it answers.

    Clients ask for ``served_model_name``, with an adapter and without one. Sources are those of
    :class:`~airflow_llmtune.operators.katib.KatibTuneLLMOperator`; an absolute path is one that every pod finds. Access
    to S3 or the Hugging Face Hub comes from the service account's Secrets.

    XCom: ``{"name", "namespace", "url", "address_url", "revision", "served_model_name", "deployment_mode",
    "smoke_test"}``; see :class:`~airflow_llmtune.operators.deployment.DeploymentOperator` for the other arguments.

    :param name: name of the InferenceService, part of its URL; runs of the DAG deploy to the same one.
    :param model: base model, or one into which an adapter was merged.
    :param adapter: LoRA adapter, such as ``fine_tune.output["artifact_uri"]``, or that of the best trial,
        ``tune.output["artifact_uri"]``; None serves the model alone.
    :param adapter_manifest: what the trainer tells of it, ``tune.output["manifest"]``: an adapter that vLLM cannot load
        is then refused, and the rank follows from it.
    :param served_model_name: what clients ask for; default: ``name``.
    :param runtime: ``huggingface`` (default) or ``vllm``.
    :param kind: ``InferenceService``, or ``LLMInferenceService``, which runs vLLM and needs KServe's LLM controller.
    :param deployment_mode: ``Standard`` or ``Knative``; default: the cluster's.
    :param max_lora_rank: rank of the adapter, rounded up to what vLLM takes; default: the manifest's, else vLLM's
        own, 16.
    :param model_args: further flags of the server: ``{"max-model-len": 4096, "trust-remote-code": True}``.
    :param env: environment of the server: name to text, or to an EnvVarSource such as ``secretKeyRef``.
    :param resources_per_replica: requests and limits of each pod, such as ``{"cpu": 8, "memory": "32Gi", "gpu": 1}``.
    :param min_replicas: pods at least; 0, in Knative mode, stops them while nobody asks.
    :param max_replicas: pods at most.
    :param service_account_name: service account that holds the Secrets.
    :param canary_traffic_percent: leave the version that serves in place, and give the new one this share.
    :param labels: labels of the object. KServe copies them to the pods, so a changed one starts new pods.
    :param overrides: parts of the object's ``spec``, merged into it: ``{"predictor": {"tolerations": [...]}}``.
    :param smoke_test: as for every deployment, and on.
    """

    template_fields: Sequence[str] = (
        *DeploymentOperator.template_fields,
        "name",
        "model",
        "adapter",
        "adapter_manifest",
        "served_model_name",
        "runtime",
        "kind",
        "deployment_mode",
        "max_lora_rank",
        "model_args",
        "env",
        "resources_per_replica",
        "min_replicas",
        "max_replicas",
        "service_account_name",
        "canary_traffic_percent",
        "labels",
        "overrides",
    )
    template_fields_renderers = {"adapter_manifest": "json", "model_args": "json", "overrides": "yaml"}

    def __init__(
        self,
        *,
        name: str,
        model: str,
        adapter: str | None = None,
        adapter_manifest: Mapping[str, Any] | None = None,
        served_model_name: str | None = None,
        runtime: str | None = None,
        kind: str = "InferenceService",
        deployment_mode: str | None = None,
        max_lora_rank: int | str | None = None,
        model_args: Mapping[str, Any] | None = None,
        env: Mapping[str, Any] | None = None,
        resources_per_replica: Mapping[str, Any] | None = None,
        min_replicas: int | str | None = None,
        max_replicas: int | str | None = None,
        service_account_name: str | None = None,
        canary_traffic_percent: int | str | None = None,
        labels: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        smoke_test: bool | Mapping[str, Any] = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(smoke_test=smoke_test, **kwargs)
        self.name = name
        self.model = model
        self.adapter = adapter
        # A missing XCom renders to None, which must not serve the model without its adapter.
        self._takes_adapter = adapter is not None
        self.adapter_manifest = adapter_manifest
        self.served_model_name = served_model_name
        self.runtime = runtime
        self.kind = kind
        self.deployment_mode = deployment_mode
        self.max_lora_rank = max_lora_rank
        self.model_args = model_args
        self.env = env
        self.resources_per_replica = resources_per_replica
        self.min_replicas = min_replicas
        self.max_replicas = max_replicas
        self.service_account_name = service_account_name
        self.canary_traffic_percent = canary_traffic_percent
        self.labels = labels
        self.overrides = overrides

    @property
    def trigger_class(self) -> type[InferenceServiceTrigger]:
        from airflow_llmtune.triggers.kserve import InferenceServiceTrigger, LLMInferenceServiceTrigger

        return LLMInferenceServiceTrigger if self._is_llm else InferenceServiceTrigger

    @property
    def served_name(self) -> str | None:
        return self.served_model_name or self.name

    @property
    def wanted_traffic(self) -> int | None:
        return canary.traffic_of(whole(self.canary_traffic_percent))

    def build_manifest(self, problems: Problems) -> JSON:
        if self.adapter is None and self._takes_adapter:
            rule = "was given and has no value now"
            problems.add("adapter", None, rule, "check that the upstream task returns that key")
        self._check_canary(problems)
        return serving_spec.ServingSpec.from_args(
            name=self.name,
            model=self.model,
            adapter=self.adapter,
            adapter_manifest=self.adapter_manifest,
            served_model_name=self.served_model_name,
            kind=self.kind,
            runtime=self.runtime,
            deployment_mode=self.deployment_mode,
            max_lora_rank=self.max_lora_rank,
            model_args=self.model_args,
            env=self.env,
            resources=self.resources_per_replica,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            service_account_name=self.service_account_name,
            labels=self.labels,
            overrides=self.overrides,
            problems=problems,
        ).to_manifest()

    def adapt(self, manifest: JSON, current: JSON | None, problems: Problems, *, goes_on: bool) -> JSON:  # noqa: ARG002
        if self._is_llm:
            return manifest
        if self.canary_traffic_percent is None:
            return {**manifest, "spec": canary.kept_name(current, manifest["spec"])}
        percent = whole(self.canary_traffic_percent) or 0
        return canary.with_canary(current, manifest, percent, problems)

    def read_smoke_test(self, manifest: JSON, problems: Problems) -> SmokeTest | None:  # noqa: ARG002
        root = smoke_test.ROOTS["vLLM" if self._is_llm or self.runtime == "vllm" else "huggingface"]
        return smoke_test.SmokeTest.read(self.smoke_test, self.served_name, root, problems)

    def read_url(self, obj: JSON) -> tuple[str | None, str | None]:
        return llm_inference_service.read_url(obj) if self._is_llm else super().read_url(obj)

    @property
    def _is_llm(self) -> bool:
        return self.kind == llm_inference_service.KIND.kind

    def _check_canary(self, problems: Problems) -> None:
        if self.canary_traffic_percent is None:
            return
        _check_percent("canary_traffic_percent", self.canary_traffic_percent, problems)
        if self._is_llm:
            rule = "is nothing that an LLMInferenceService has"
            problems.add("canary_traffic_percent", self.canary_traffic_percent, rule, "leave it out")


class CanaryTrafficOperator(DeploymentOperator):
    """
    Gives the canary of an InferenceService another share of the requests, and waits until it has it.

    XCom: as :class:`DeployLLMOperator`; see :class:`~airflow_llmtune.operators.deployment.DeploymentOperator` for the
    other arguments. The smoke test needs ``model``, the name to ask for.

    :param name: name of the InferenceService.
    :param percent: share of the canary; 100 makes it the version that serves, 0 ends it.
    """

    template_fields: Sequence[str] = (*DeploymentOperator.template_fields, "name", "percent")

    def __init__(self, *, name: str, percent: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.percent = percent

    @property
    def wanted_traffic(self) -> int | None:
        return canary.traffic_of(whole(self.percent))

    def build_manifest(self, problems: Problems) -> JSON:
        _check_percent("percent", self.percent, problems)
        if not isinstance(self.name, str) or not self.name:
            problems.add("name", self.name, "is not a name", "give that of the InferenceService")
        return {"metadata": {"name": self.name}, "spec": {}}

    def adapt(self, manifest: JSON, current: JSON | None, problems: Problems, *, goes_on: bool) -> JSON:
        if current is None:
            problems.add("name", self.name, "is no InferenceService of this namespace", "deploy one first")
            return manifest
        whole_now = whole_manifest(inference_service.KIND, current)
        if goes_on and canary.share(current["spec"]) is None:
            return whole_now  # It was promoted or ended by an earlier try.
        return {**whole_now, "spec": canary.with_traffic(current, whole(self.percent) or 0, problems)}

    def read_smoke_test(self, manifest: JSON, problems: Problems) -> SmokeTest | None:
        model_format = path(manifest, "spec", "predictor", "model", "modelFormat", "name")
        # What serves there is not known before the object was read.
        root = smoke_test.ROOTS.get(model_format, smoke_test.ROOTS["huggingface"])
        return smoke_test.SmokeTest.read(self.smoke_test, None, root, problems)


def _check_percent(argument: str, value: Any, problems: Problems) -> None:
    percent = problems.integer(argument, value, at_least=0)
    if percent is not None and percent > 100:
        problems.add(argument, value, "is more than 100", "give a whole number from 0 to 100")
