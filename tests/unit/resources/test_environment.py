from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.resources import trial_template
from airflow_llmtune.resources.environment import check_environments
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_spec import RESERVED_FLAGS, TrainerSpec, read_flags
from llmtune_trainer.flags import load
from llmtune_trainer.settings import Settings

JSON = dict[str, Any]
SECRET = "hf_SECRET"


def build(**changes: Any) -> tuple[TrainerSpec, Problems]:
    problems = Problems()
    return TrainerSpec.from_args(
        problems=problems, **{"model": "/models/base", "dataset": "/data", **changes}
    ), problems


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD",
                                  "WANDB_API_KEY", "GITHUB_TOKEN", "hf_token", "MY_SECRET_1"])  # fmt: skip
def test_a_secret_in_plain_text_is_refused_and_not_repeated(name: str) -> None:
    _, problems = build(env={name: "s3cr3t-value"})
    with pytest.raises(InvalidSpecError, match="secretKeyRef") as caught:
        problems.raise_if_any("Task tune")
    assert f"env.{name}" in str(caught.value)
    assert "s3cr3t-value" not in str(caught.value)


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob"])
@pytest.mark.parametrize("containers", ["containers", "initContainers"])
@pytest.mark.parametrize(("name", "value"), [("HF_TOKEN", "hf_SECRET"), ("PROXY", "http://me:hf_SECRET@proxy:3128")])
def test_a_secret_in_a_pod_template_is_refused_as_in_the_environment(
    kind: str, containers: str, name: str, value: str
) -> None:
    env = [{"name": "A", "value": "1"}, {"name": name, "value": value}]
    override = {"spec": {containers: [{"name": "other", "image": "x", "env": env}]}}
    problems = Problems()
    options = trial_template.read_options("job_options", {"job_kind": kind, "pod_template": override}, problems)
    assert "pod_template" not in options
    with pytest.raises(InvalidSpecError, match="looks like a secret") as caught:
        problems.raise_if_any("Task tune")
    assert f"`job_options.pod_template.spec.{containers}[0].env.{name}`" in str(caught.value)
    assert "hf_SECRET" not in str(caught.value)


def test_a_pod_template_may_refer_to_a_secret_and_say_env_elsewhere() -> None:
    env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    override = {
        "metadata": {"labels": {"env": "prod"}},
        "spec": {"nodeSelector": {"env": "prod"}, "containers": [{"name": "training-container", "env": env}]},
    }
    spec, problems = build(pod_template=override)
    assert problems.errors == []
    assert spec.pod_template == override


CONTAINERS = {"containers": [{"name": "training-container", "env": {"HF_TOKEN": SECRET}}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"env": [{"name": "HF_TOKEN", "value": SECRET}]},
        {"env": {"HF_TOKEN": [SECRET]}},
        {"env": {"HF_TOKEN": SECRET}},
        {"env": {"HF_TOKEN": {"value": SECRET}}},
        {"env": {"HF_TOKEN": SECRET.encode()}},
        {"env": {f"HF_TOKEN={SECRET}": "x"}},
        {"env": f"HF_TOKEN={SECRET}"},
        {"env": SECRET},
        {"pod_template": {"spec": CONTAINERS}},
        {"pod_template": {"env": {"HF_TOKEN": SECRET}}},
        {"pod_template": {"token": SECRET}},
        {"pod_template": [{"env": {"HF_TOKEN": SECRET}}]},
        {"pod_template": json.dumps({"spec": CONTAINERS})},
        {"model": f"s3://key:{SECRET}@bucket/x"},
        {"dataset": f"s3://key:a/{SECRET}@bucket/x"},
        {"output_uri": f"https://{SECRET}@host/x"},
        {"trainer_args": {"hub_token": SECRET}},
        {"trainer_args": {"hub_token": {"value": SECRET}}},
        {"trainer_args": f"--hub_token {SECRET}"},
        {"resources": {"HF_TOKEN": SECRET}},
        {"service_account_name": {"token": SECRET}},
    ],
)
def test_no_mistake_repeats_a_secret(changes: JSON) -> None:
    _, problems = build(**changes)
    with pytest.raises(InvalidSpecError) as caught:
        problems.raise_if_any("Task tune")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(problems.errors)


def test_none_of_the_trainers_settings_is_taken_for_a_secret() -> None:
    flags = [option.name for option in fields(Settings)] + [flag.name for flag in load().flags]
    names = [name for name in dict.fromkeys(flags) if name not in RESERVED_FLAGS]
    problems = Problems()
    assert list(read_flags("trainer_args", dict.fromkeys(names, 1), problems)) == names
    assert problems.errors == []


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYBOARD", "AWS_ENDPOINT_URL"])
def test_harmless_names_are_not_taken_for_secrets(name: str) -> None:
    _, problems = build(env={name: "1"}, image="other", trainer_args={"pad_token": "<pad>", "max_new_tokens": 8})
    assert problems.errors == []


def test_a_reference_to_a_secret_is_passed_on() -> None:
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    spec, problems = build(env={"HF_TOKEN": reference})
    assert problems.errors == []
    assert spec.env == {"HF_TOKEN": reference}


def test_a_secret_is_found_in_any_environment_below_and_a_reference_is_none() -> None:
    entries = [
        {"name": "API_KEY", "value": SECRET},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "A", "value": "1"},
        "no entry",
        {"value": SECRET},
    ]
    pod = {"containers": [{"name": "main", "env": entries}, {"name": "other", "env": {"no": "list"}}]}
    problems = Problems()
    check_environments("spec", {"trialTemplate": {"trialSpec": {"spec": {"template": {"spec": pod}}}}}, problems)
    (mistake,) = map(str, problems.errors)
    where = "spec.trialTemplate.trialSpec.spec.template.spec.containers[0].env.API_KEY"
    assert mistake.startswith(f"`{where}`=*** looks like a secret")
