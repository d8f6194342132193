"""What a model to serve becomes, as both kinds of KServe and both runtimes; and each mistake with its message."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import stamped
from airflow_llmtune.resources.serving_spec import ServingSpec
from crd_schemas import violations

JSON = dict[str, Any]
SECRET = {"secretKeyRef": {"name": "hub", "key": "token"}}
LLM = "LLMInferenceService"


def read(problems: Problems, **changes: Any) -> ServingSpec:
    given: JSON = dict.fromkeys(
        (
            *(
                "adapter",
                "adapter_manifest",
                "served_model_name",
                "runtime",
                "deployment_mode",
                "max_lora_rank",
                "model_args",
                "env",
            ),
            *("resources", "min_replicas", "max_replicas", "service_account_name", "labels", "overrides"),
        )
    )
    given |= {"name": "chat", "model": "org/base", "kind": "InferenceService", **changes}
    return ServingSpec.from_args(problems=problems, **given)


def made(**changes: Any) -> JSON:
    problems = Problems()
    spec = read(problems, **changes)
    problems.raise_if_any("The test's input")
    manifest = spec.to_manifest()
    assert violations({**manifest, "spec": stamped(manifest["spec"])}) == []
    return manifest


def mistakes(**changes: Any) -> list[str]:
    problems = Problems()
    read(problems, **changes)
    return [str(error) for error in problems.errors]


def predictor(**changes: Any) -> JSON:
    found: JSON = made(**changes)["spec"]["predictor"]
    return found


def test_a_model_alone_is_fetched_to_where_its_server_looks():
    assert predictor(model="hf://org/base@v1") == {
        "model": {
            "modelFormat": {"name": "huggingface"},
            "args": ["--model_name=chat"],
            "storageUri": "hf://org/base:v1",
        }
    }


def test_a_base_model_and_its_adapter_are_fetched_beside_each_other():
    found = predictor(adapter="s3://bucket/run/adapter/", max_lora_rank=24, served_model_name="tuned")
    assert found["storageUris"] == [
        {"uri": "hf://org/base", "mountPath": "/mnt/models/base"},
        {"uri": "s3://bucket/run/adapter", "mountPath": "/mnt/models/adapter"},
    ]
    assert found["model"]["args"] == [
        "--model_name=tuned-base",
        "--model_dir=/mnt/models/base",
        "--backend=vllm",
        "--enable-lora",
        "--max-lora-rank=32",
        '--lora-modules={"name":"tuned","path":"/mnt/models/adapter"}',
    ]
    assert "storageUri" not in found["model"]


def test_what_lies_at_a_path_of_the_pod_is_not_fetched():
    found = predictor(model="/models/base", adapter="file:///adapters/tuned", runtime="vllm")
    assert "storageUris" not in found
    assert found["model"]["args"] == [
        "--served-model-name=chat-base",
        "--model=/models/base",
        "--enable-lora",
        '--lora-modules={"name":"chat","path":"/adapters/tuned"}',
    ]


def test_beside_another_kserve_mounts_the_whole_claim_and_the_server_is_told_where_in_it():
    found = predictor(model="pvc://models", adapter="pvc://runs/42/adapter/")
    assert found["storageUris"] == [
        {"uri": "pvc://models", "mountPath": "/mnt/models/base"},
        {"uri": "pvc://runs/42/adapter", "mountPath": "/mnt/models/adapter"},
    ]
    assert "--model_dir=/mnt/models/base" in found["model"]["args"]
    assert '--lora-modules={"name":"chat","path":"/mnt/models/adapter/42/adapter"}' in found["model"]["args"]


def test_a_path_and_an_address_go_together():
    found = predictor(model="/models/base", adapter="pvc://models/tuned")
    assert found["storageUris"] == [{"uri": "pvc://models/tuned", "mountPath": "/mnt/models/adapter"}]
    assert "--model_dir=/models/base" in found["model"]["args"]


@pytest.mark.parametrize("runtime", ["huggingface", "vllm"])
def test_everything_that_can_be_given_satisfies_kserves_definition(runtime):
    manifest = made(
        runtime=runtime,
        adapter="org/adapter",
        deployment_mode="Standard",
        max_lora_rank="64",
        model_args={
            "max-model-len": "4096",
            "trust-remote-code": True,
            "quiet": False,
            "stop": ["a", "b"],
            "none": None,
        },
        env={"HF_TOKEN": SECRET, "PRICE": "$5"},
        resources={"cpu": 2, "memory": "8Gi", "gpu": 1},
        min_replicas="1",
        max_replicas=3,
        service_account_name="models",
        labels={"team": "nlp"},
        overrides={"predictor": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "timeout": 600}},
    )
    assert manifest["metadata"] == {
        "name": "chat",
        "labels": {"app.kubernetes.io/managed-by": "airflow-llmtune", "team": "nlp"},
        "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
    }
    found = manifest["spec"]["predictor"]
    assert found["model"]["args"][-4:] == ["--max-model-len=4096", "--trust-remote-code", "--stop=a", "--stop=b"]
    # Kubernetes would replace $(NAME).
    assert found["model"]["env"] == [{"name": "HF_TOKEN", "valueFrom": SECRET}, {"name": "PRICE", "value": "$$5"}]
    limits = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert found["model"]["resources"] == {"requests": limits, "limits": limits}
    assert (found["minReplicas"], found["maxReplicas"], found["timeout"]) == (1, 3, 600)


def test_an_llm_inference_service_names_the_adapter_as_clients_do():
    manifest = made(
        kind=LLM,
        model="hf://org/base",
        adapter="s3://bucket/adapter",
        max_lora_rank=8,
        min_replicas=2,
        model_args={"max-model-len": 4096},
        env={"HF_TOKEN": SECRET},
        resources={"gpu": 1},
        service_account_name="models",
    )
    spec = manifest["spec"]
    assert spec["model"] == {
        "uri": "hf://org/base",
        "name": "chat-base",
        "lora": {"adapters": [{"name": "chat", "uri": "s3://bucket/adapter"}], "maxRank": 8},
    }
    assert (spec["replicas"], spec["router"]) == (2, {"gateway": {}, "route": {}})
    (container,) = spec["template"]["containers"]
    assert container["env"][-1] == {"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-model-len=4096"}
    assert "template" not in made(kind=LLM)["spec"]


def test_overrides_are_merged_by_name_into_what_is_made():
    manifest = made(
        kind=LLM,
        env={"A": "1"},
        overrides={"template": {"containers": [{"name": "main", "image": "mine"}], "nodeSelector": {"gpu": "yes"}}},
    )
    assert manifest["spec"]["template"] == {
        "containers": [{"name": "main", "image": "mine", "env": [{"name": "A", "value": "1"}]}],
        "nodeSelector": {"gpu": "yes"},
    }


@pytest.mark.parametrize(("rank", "rounded"), [(1, 1), (4, 8), (8, 8), ("33", 64), (129, 256), (257, 320), (512, 512)])
def test_a_rank_is_rounded_up_to_what_vllm_takes(rank, rounded):
    assert f"--max-lora-rank={rounded}" in predictor(adapter="/a", max_lora_rank=rank)["model"]["args"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Chat_1"}, "`name`='Chat_1' is not a name of at most"),
        ({"name": "c" * 50}, "is not a name of at most"),
        ({"name": None, "served_model_name": "chat"}, "`name`=None is not a name"),
        ({"model": "base"}, "`model`='base' is no address"),
        (
            {"model": "org/base@refs/pr/1"},
            "has a revision with a slash, which KServe's storage initializer cannot read",
        ),
        ({"model": "pvc://Claim"}, "`model`='pvc://Claim' is no address"),
        ({"adapter": 5}, "`adapter`=5 is no address"),
        ({"served_model_name": "my model"}, "`served_model_name`='my model' is not a name that clients can ask for"),
        ({"kind": "Deployment"}, "`kind`='Deployment' is not known"),
        ({"runtime": "triton"}, "`runtime`='triton' is not known"),
        ({"deployment_mode": "Serverless"}, "`deployment_mode`='Serverless' is not known"),
        ({"adapter": "/a", "max_lora_rank": 1024}, "`max_lora_rank`=1024 is more than vLLM's 512"),
        ({"adapter": "/a", "max_lora_rank": "many"}, "`max_lora_rank`='many' is not a whole number"),
        ({"max_lora_rank": 8}, "`max_lora_rank`=8 needs an adapter"),
        (
            {"model_args": {"model-dir": "/x"}},
            "`model_args.model-dir`='/x' has an argument of its own. Fix: use `model`",
        ),
        ({"model_args": {"lora_modules": "x"}}, "has an argument of its own. Fix: use `adapter`"),
        ({"model_args": {"--x": 1}}, "is not a flag's name"),
        ({"model_args": {"x": {}}}, "is not a text, finite number, boolean or list of these"),
        ({"model_args": {"api-key": "sk-123"}}, "looks like a secret"),
        ({"env": {"HF_TOKEN": "hf_123"}}, "`env.HF_TOKEN`=*** looks like a secret"),
        ({"overrides": {"predictor": {"model": {"env": [{"name": "API_KEY", "value": "k"}]}}}}, "looks like a secret"),
        ({"overrides": {"predicter": {}}}, "Fix: did you mean `predictor`?"),
        ({"kind": LLM, "overrides": {"predictor": {}}}, "is no part of this spec of the LLMInferenceService"),
        ({"resources": {"memory": 8}}, "`resources_per_replica.memory`=8 is less than a mebibyte"),
        ({"min_replicas": -1}, "`min_replicas`=-1 is less than 0"),
        ({"min_replicas": 3, "max_replicas": 2}, "`min_replicas`=3 is more than `max_replicas`=2"),
        ({"min_replicas": 0}, "lets the model scale to zero, which only Knative mode does"),
        ({"service_account_name": ""}, "`service_account_name`='' is not a name"),
        ({"labels": {"team": 5}}, "`labels.team`=5 is no pair of texts"),
        ({"overrides": {"predictor": {"timeout": {1}}}}, "`overrides.predictor.timeout`=<set> is no text, number"),
        ({"kind": LLM, "runtime": "huggingface"}, "is not what an LLMInferenceService runs"),
        ({"kind": LLM, "model": "/models/a"}, "is a path, and an LLMInferenceService takes addresses only"),
        ({"kind": LLM, "max_replicas": 2}, "is nothing that an LLMInferenceService has"),
        ({"kind": LLM, "deployment_mode": "Standard"}, "is nothing that an LLMInferenceService has"),
    ],
)
def test_a_mistake_is_told_with_its_rule_and_its_fix(changes, told):
    (found,) = mistakes(**changes)
    assert told in found
    assert ". Fix: " in found
    assert "hf_123" not in found
    assert "sk-123" not in found


def test_all_mistakes_are_told_at_once():
    assert len(mistakes(name="X", model="x", runtime="x", min_replicas="x", env={"A": None})) == 5


def test_a_model_that_may_scale_to_zero_says_so():
    assert predictor(deployment_mode="Knative", min_replicas=0)["minReplicas"] == 0
