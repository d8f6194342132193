from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.resources import trial_template
from airflow_llmtune.resources.own_name import fill_in
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.redaction import carries_secret
from airflow_llmtune.resources.search_space import SearchSpace, categorical, discrete, double, integer
from airflow_llmtune.resources.trial_template import TrainerSpec

JSON = dict[str, Any]
ARGS: JSON = {"model": "/models/base", "dataset": "/data/text"}
SPACE: JSON = {"learning_rate": double(1e-5, 1e-3), "lr_scheduler_type": categorical(["cosine", "linear"])}
# A trainer of somebody else, whose settings nobody knows.
OTHER = "example.com/trainer:1"
WHERE = ("demo-1", "ml", {"a": "1"}, {})


def build(**changes: Any) -> tuple[TrainerSpec, Problems]:
    problems = Problems()
    return TrainerSpec.from_args(problems=problems, **{**ARGS, **changes}), problems


def template(space: JSON | None = None, **changes: Any) -> JSON:
    spec, problems = build(**changes)
    searched = SearchSpace.from_json(SPACE if space is None else space, problems)
    made = trial_template.trial_template(spec, searched, problems)
    problems.raise_if_any("The trial")
    return made


def training(hyperparameters: Any, **changes: Any) -> JSON:
    spec, problems = build(**changes)
    made = trial_template.training_manifest(spec, *WHERE, hyperparameters, problems)
    problems.raise_if_any("The training")
    return made


def pod_of(job: JSON) -> JSON:
    spec = job["spec"]
    return dict(spec["template"] if job["kind"] == "Job" else spec["pytorchReplicaSpecs"]["Master"]["template"])


def container_of(job: JSON) -> JSON:
    return dict(pod_of(job)["spec"]["containers"][0])


def env_of(job: JSON) -> JSON:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container_of(job)["env"]}


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "argument", "rule"),
    [
        ({"model": "gpt2"}, "model", "is no address"),
        ({"model": "./base"}, "model", "is no address"),
        ({"model": "gs://bucket/base"}, "model", "is no address"),
        ({"model": "hf://org"}, "model", "is no address"),
        ({"model": "s3://key:secret@bucket/base"}, "model", "is no address"),
        ({"model": "pvc://Claim/x"}, "model", "is no address"),
        ({"model": None}, "model", "is no address"),
        ({"dataset": "org/data@"}, "dataset", "is no address"),
        ({"output_uri": "org/out"}, "output_uri", "is no address"),
        ({"output_uri": "hf://org/out"}, "output_uri", "is no address"),
        ({"image": ""}, "image", "is not an image name"),
        ({"image": " x"}, "image", "is not an image name"),
        ({"image": None}, "image", "is not an image name"),
        ({"trainer_args": ["--lr"]}, "trainer_args", "is not a mapping"),
        ({"trainer_args": {"--lr": 1}}, "trainer_args.--lr", "is not a setting's name"),
        ({"trainer_args": {"output_dir": "/x"}}, "trainer_args.output_dir", "has an argument of its own"),
        ({"trainer_args": {"model_revision": "x"}}, "trainer_args.model_revision", "has an argument of its own"),
        ({"trainer_args": {"adapter": "/x"}}, "trainer_args.adapter", "has an argument of its own"),
        ({"trainer_args": {"save_steps": 5}}, "trainer_args.save_steps", "has an argument of its own"),
        ({"trainer_args": {"checkpoint_dir": "/x"}}, "trainer_args.checkpoint_dir", "has an argument of its own"),
        ({"trainer_args": {"keep_checkpoints": True}}, "trainer_args.keep_checkpoints", "has an argument of its own"),
        ({"trainer_args": {"lora_rank_pattern": {1: 8}}}, "trainer_args.lora_rank_pattern.1", "has a name that"),
        ({"trainer_args": {"lora_rank_pattern": {"q": "x"}}}, "trainer_args.lora_rank_pattern", "JSON object of whole"),
        ({"trainer_args": {"lr_scheduler_kwargs": {"a": float("nan")}}}, "trainer_args.lr_scheduler_kwargs.a",
         "is not a finite number"),
        ({"trainer_args": {"lr_scheduler_kwargs": {"a": "http://a:b@c"}}}, "trainer_args.lr_scheduler_kwargs",
         "looks like a secret"),
        ({"trainer_args": {"learning_rate": {"a": 1}}}, "trainer_args.learning_rate", "is not a text, finite number"),
        ({"image": OTHER, "trainer_args": {"lora_rank_pattern": {"q": 1}}}, "trainer_args.lora_rank_pattern",
         "is not a text, finite number"),
        ({"checkpoint_steps": 0}, "checkpoint_steps", "is less than 1"),
        ({"checkpoint_steps": "often"}, "checkpoint_steps", "is not a whole number"),
        ({"evaluates": True, "adapter": "adapters/of/mine"}, "adapter", "is no address"),
        ({"trainer_args": {"x": {"a": 1}}}, "trainer_args.x", "is not a text, finite number"),
        ({"trainer_args": {"x": float("nan")}}, "trainer_args.x", "is not a text, finite number"),
        ({"trainer_args": {"x": 10**5000}}, "trainer_args.x", "is not a text, finite number"),
        ({"trainer_args": {"x": ["a", "b\0"]}}, "trainer_args.x", "is not a text, finite number"),
        ({"model": "/models/\ud800"}, "model", "is no address"),
        ({"image": "trainer\nlatest"}, "image", "is not an image name"),
        ({"trainer_args": {"lora_modules_to_save": ["a,b", "c"]}}, "trainer_args.lora_modules_to_save", "has a comma"),
        ({"trainer_args": {"sample_prompt": "${trialParameters.y}"}}, "trainer_args.sample_prompt", "contains what"),
        ({"trainer_args": {"x": "https://user:pw@host/x"}}, "trainer_args.x", "looks like a secret"),
        ({"trainer_args": {"x": ["a", "https://pw@host/x"]}}, "trainer_args.x", "looks like a secret"),
        ({"trainer_args": {"hub_token": "abc"}}, "trainer_args.hub_token", "looks like a secret"),
        ({"env": "A=1"}, "env", "is not a mapping"),
        ({"env": {"A B": "1"}}, "env.A B", "is not a variable's name"),
        ({"env": {"A": None}}, "env.A", "is not a text"),
        ({"env": {"A": "b\0"}}, "env.A", "is not a text that a process can be given"),
        ({"env": {"A": {"secretKeyRef": {"name": 7, "key": "b"}}}}, "env.A.secretKeyRef.name", "is missing, or"),
        ({"env": {"A": {"fieldRef": "metadata.name"}}}, "env.A.fieldRef.fieldPath", "is missing, or no text"),
        ({"env": {"PROXY": "http://me:pw@proxy:3128"}}, "env.PROXY", "looks like a secret"),
        ({"env": {"A": "-----BEGIN PRIVATE KEY-----"}}, "env.A", "looks like a secret"),
        ({"env": {"A": {"secretRef": {}}}}, "env.A", "is not exactly one of"),
        ({"env": {"A": {}}}, "env.A", "is not exactly one of"),
        ({"env": {"A": {"secretKeyRef": {"name": "s"}}}}, "env.A.secretKeyRef.key", "is missing"),
        ({"env": {"A": {"configMapKeyRef": {"key": "s"}}}}, "env.A.configMapKeyRef.name", "is missing"),
        ({"resources": {"cpus": 1}}, "resources.cpus", "is not known"),
        ({"resources": {"cpu": "much"}}, "resources.cpu", "is not a quantity"),
        ({"resources": {"cpu": 0}}, "resources.cpu", "is not a quantity above 0"),
        ({"resources": {"cpu": "1e400"}}, "resources.cpu", "is not a quantity above 0"),
        ({"resources": {"cpu": True}}, "resources.cpu", "is not a quantity"),
        ({"resources": {"memory": "4"}}, "resources.memory", "is less than a mebibyte"),
        ({"resources": {"memory": "4GB"}}, "resources.memory", "is not a quantity"),
        ({"resources": {"gpu": 0.5}}, "resources.gpu", "is not a whole number"),
        ({"resources": {"amd.com/gpu": "500m"}}, "resources.amd.com/gpu", "is not a whole number"),
        ({"resources": [1]}, "resources", "is not a mapping"),
        ({"job_kind": "PytorchJob"}, "job_kind", "is not known"),
        ({"num_nodes": 0}, "num_nodes", "is less than 1"),
        ({"num_nodes": 2, "job_kind": "Job"}, "num_nodes", "is more than a Job can run"),
        ({"num_procs_per_node": "two"}, "num_procs_per_node", "is not a whole number"),
        ({"active_deadline_seconds": 0}, "active_deadline_seconds", "is less than 1"),
        ({"ttl_seconds_after_finished": 3599}, "ttl_seconds_after_finished", "is less than 3600"),
        ({"ttl_seconds_after_finished": "soon"}, "ttl_seconds_after_finished", "is not a whole number"),
        ({"service_account_name": ""}, "service_account_name", "is not a name"),
        ({"pod_template": "x"}, "pod_template", "is not a mapping"),
        ({"pod_template": {"containers": []}}, "pod_template.containers", "is no part of a pod template"),
        ({"pod_template": {"spec": []}}, "pod_template.spec", "is not a mapping"),
        ({"pod_template": {"spec": {"nodeSelector": {1: "a"}}}}, "pod_template.spec.nodeSelector.1", "has a name that"),
        ({"pod_template": {"spec": {"priority": {1}}}}, "pod_template.spec.priority", "is no text, number or boolean"),
        ({"pod_template": {"spec": None}}, "pod_template.spec", "is not a mapping"),
        ({"pod_template": {"metadata": "x"}}, "pod_template.metadata", "is not a mapping"),
        ({"pod_template": {"metadata": {"labels": ["x"]}}}, "pod_template.metadata.labels", "is not a mapping"),
        ({"pod_template": {"metadata": {"labels": {"a": 1}}}}, "pod_template.metadata.labels.a", "is no pair of texts"),
        ({"pod_template": {"spec": {"containers": [{"name": {"a": 1}}]}}}, "pod_template.spec.containers",
         "entries with"),
        ({"pod_template": {"spec": {"initContainers": [{"name": "i", "volumeMounts": [{"name": "x"}]}]}}},
         "pod_template.spec.initContainers[0].volumeMounts", "entries with `mountPath`"),
        ({"pod_template": {"spec": {"containers": [{"image": "x"}]}}}, "pod_template.spec.containers", "entries with"),
        ({"pod_template": {"spec": {"volumes": {"name": "x"}}}}, "pod_template.spec.volumes", "entries with `name`"),
        ({"pod_template": {"spec": {"containers": [{"name": "training-container", "env": [{}]}]}}},
         "pod_template.spec.containers[0].env", "entries with `name`"),
        ({"pod_template": {"spec": {"containers": [{"name": "main"}]}}}, "pod_template.spec.containers",
         "is neither the trainer's container training-container"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(changes: JSON, argument: str, rule: str) -> None:
    _, problems = build(**changes)
    assert [error.argument for error in problems.errors] == [argument], problems.errors
    assert rule in problems.errors[0].rule


def test_mistakes_of_trainer_and_search_come_in_one_error() -> None:
    spec, problems = build(model="gpt2", trainer_args={"lora_r": 8}, resources={"cpu": "x"})
    space = {"lora_r": integer(4, 8), "trial_name": integer(1, 2), "output_dir": integer(1, 2), "LR": integer(1, 2)}
    trial_template.trial_template(spec, SearchSpace.from_json(space, problems), problems)
    with pytest.raises(InvalidSpecError, match="has 6 mistakes") as caught:
        problems.raise_if_any("Task tune")
    for part in ("`model`", "`resources.cpu`", "is also fixed, at '8'", "is set by the operator", "write lr"):
        assert part in str(caught.value)


@pytest.mark.parametrize("argument", ["image", "model", "dataset", "output_uri", "env.A"])
def test_what_katib_would_replace_in_a_trial_is_a_mistake_there_only(argument: str) -> None:
    text = "/${trialParameters.x}"
    changes = {"env": {"A": text}} if argument == "env.A" else {argument: text}
    with pytest.raises(InvalidSpecError, match="has 1 mistake:") as caught:
        template(**changes)
    assert [error.argument for error in caught.value.errors] == [argument]
    assert training({}, **changes)


@pytest.mark.parametrize(
    ("hyperparameters", "argument", "rule"),
    [
        ({"max_steps": 1}, "hyperparameters.max_steps", "is also set by `trainer_args`"),
        ({"dataset_name": "x"}, "hyperparameters.dataset_name", "has an argument of its own"),
        ({"lora_r": None}, "hyperparameters.lora_r", "has no value"),
        ("{'lora_r': 8}", "hyperparameters", "is not a mapping"),
    ],
)
def test_mistakes_in_hyperparameters_are_named(hyperparameters: Any, argument: str, rule: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        training(hyperparameters, trainer_args={"max_steps": 5})
    assert [error.argument for error in caught.value.errors] == [argument]
    assert rule in caught.value.errors[0].rule


def test_a_trainer_with_mistakes_can_still_be_built_so_that_all_are_collected() -> None:
    changes: JSON = {name: object() for name in (
        "model", "dataset", "image", "trainer_args", "resources", "env", "num_nodes", "num_procs_per_node", "job_kind",
        "service_account_name", "active_deadline_seconds", "ttl_seconds_after_finished", "output_uri", "pod_template",
    )}  # fmt: skip
    spec, problems = build(**changes)
    trial_template.trial_template(spec, SearchSpace.from_json(SPACE, problems), problems)
    trial_template.training_manifest(spec, *WHERE, object(), problems)
    assert {error.argument for error in problems.errors} == {*changes, "hyperparameters"}


# --- options ----------------------------------------------------------------------------------------------------


def test_options_are_read_under_their_own_argument() -> None:
    problems = Problems()
    options = trial_template.read_options(
        "job_options", {"num_nodes": "2", "num_procs": 2, "active_deadline_seconds": 0}, problems
    )
    assert [error.argument for error in problems.errors] == [
        "job_options.num_procs",
        "job_options.active_deadline_seconds",
    ]
    assert "did you mean `num_procs_per_node`?" in problems.errors[0].fix
    spec, problems = build(**options)
    assert problems.errors == []  # what was wrong is not told twice
    assert (spec.num_nodes, spec.job_kind) == (2, "PyTorchJob")


def of_gpus(number: Any) -> JSON:
    container = {"name": "training-container", "resources": {"limits": {"nvidia.com/gpu": number}}}
    return {"spec": {"containers": [container]}}


@pytest.mark.parametrize(
    ("resources", "options", "processes"),
    [
        ({"gpu": 4}, {}, 4),
        ({"gpu": 4}, {"num_procs_per_node": None}, 4),
        ({"gpu": "2"}, {"num_procs_per_node": "2", "num_nodes": 3}, 2),
        ({"amd.com/gpu": 2}, {}, 2),
        ({"nvidia.com/gpu.shared": 2}, {}, 2),
        ({"nvidia.com/mig-1g.10gb": 1, "cpu": 4}, {}, 1),
        ({"cpu": 4}, {"num_procs_per_node": 2}, 2),
        ({"gpu": 4}, {"image": OTHER}, 4),
        ({"gpu": 4}, {"image": OTHER, "num_procs_per_node": 1}, 1),
        ({"gpu": 1}, {"pod_template": of_gpus(4)}, 4),
        ({}, {"pod_template": of_gpus("2"), "num_procs_per_node": 2}, 2),
        ({"gpu": 2}, {"pod_template": {"spec": {"containers": [{"name": "proxy", "image": "proxy"}]}}}, 2),
    ],
)
def test_each_gpu_has_a_process(resources: JSON, options: JSON, processes: int) -> None:
    spec, problems = build(resources=resources, **options)
    assert (spec.num_procs_per_node, problems.errors) == (processes, [])


@pytest.mark.parametrize(
    ("pods", "processes", "gpus"),
    [
        ({"resources": {"gpu": 8}}, 1, 8),
        ({"resources": {"amd.com/gpu": 1}}, 2, 1),
        ({"resources": {"gpu": "4"}}, "2", 4),
        ({"resources": {"gpu": 2}, "pod_template": of_gpus(4)}, 2, 4),
    ],
)
def test_gpus_that_idle_or_lack_are_told(pods: JSON, processes: Any, gpus: int) -> None:
    _, problems = build(num_procs_per_node=processes, **pods)
    (mistake,) = map(str, problems.errors)
    assert mistake.startswith(f"`job_options.num_procs_per_node`={processes} is not one for each GPU of a pod")
    assert f"which has {gpus}. Fix: leave it out" in mistake


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ["trainer_args.fsdp"]),
        ({"resources": {"gpu": 1}}, ["trainer_args.fsdp"]),
        ({"resources": {"gpu": 2}}, []),
        ({"resources": {"gpu": 1}, "num_nodes": 2}, []),
        ({"image": OTHER}, []),
    ],
)
def test_a_model_is_sharded_over_several_processes(changes: JSON, told: list[str]) -> None:
    _, problems = build(trainer_args={"fsdp": True}, **changes)
    assert [error.argument for error in problems.errors] == told


@pytest.mark.parametrize("given_options", [None, {}, {"job_kind": None, "pod_template": None}])
def test_without_options_one_job_runs_with_a_deadline(given_options: Any) -> None:
    spec, problems = build(**trial_template.read_options("job_options", given_options, Problems()))
    assert problems.errors == []
    assert (spec.job_kind, spec.num_nodes, spec.num_procs_per_node) == ("Job", 1, 1)
    assert spec.active_deadline_seconds > 0
    assert (spec.ttl_seconds_after_finished or 0) >= 3600


def test_resources_are_named_as_the_operator_calls_them() -> None:
    _, problems = build(resources={"cpu": "x"}, resources_argument="resources_per_trial")
    assert problems.errors[0].argument == "resources_per_trial.cpu"


# --- sources ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("/models/base/", ["--model_name_or_path=/models/base"]),
        ("file:///models/base", ["--model_name_or_path=file:///models/base"]),
        ("org/base", ["--model_name_or_path=hf://org/base"]),
        ("hf://org/base@v1.0", ["--model_name_or_path=hf://org/base", "--model_revision=v1.0"]),
        ("s3://bucket/models/base", ["--model_name_or_path=s3://bucket/models/base"]),
        ("pvc://claim/models/base", ["--model_name_or_path=/mnt/claim/models/base"]),
        ("pvc://claim", ["--model_name_or_path=/mnt/claim"]),
    ],
)
def test_sources_become_flags(model: str, flags: list[str]) -> None:
    args = container_of(training({}, model=model))["args"]
    assert [arg for arg in args if arg.startswith("--model")] == flags


def test_a_data_set_and_an_adapter_have_their_revision_in_the_address() -> None:
    args = container_of(training({}, dataset="org/rows@v1", evaluates=True, adapter="hf://org/adapter@main"))["args"]
    assert args[1:] == ["--dataset_name=hf://org/rows@v1", "--adapter=hf://org/adapter@main"]


def test_a_claim_is_mounted_once_and_writable_only_for_the_output() -> None:
    job = training({}, model="pvc://models/a", dataset="pvc://work/data", output_uri="pvc://work/out")
    assert pod_of(job)["spec"]["volumes"] == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "claim-1", "persistentVolumeClaim": {"claimName": "work"}},
    ]
    assert container_of(job)["volumeMounts"] == [
        {"name": "claim-0", "mountPath": "/mnt/models", "readOnly": True},
        # Katib compares a trial's Job with its own form of it, which leaves out what is the default.
        {"name": "claim-1", "mountPath": "/mnt/work"},
    ]
    assert "--output_dir=/mnt/work/out" in container_of(job)["args"]


def test_the_adapter_to_evaluate_is_only_read() -> None:
    job = training({}, model="/models/a", evaluates=True, adapter="pvc://work/out/adapter")
    assert "--adapter=/mnt/work/out/adapter" in container_of(job)["args"]
    assert [mount["readOnly"] for mount in container_of(job)["volumeMounts"]] == [True]


@pytest.mark.parametrize("adapter", [None, ""])
def test_without_an_adapter_the_base_model_is_evaluated(adapter: str | None) -> None:
    args = container_of(training({}, evaluates=True, adapter=adapter))["args"]
    assert [arg for arg in args if arg.startswith("--adapter")] == []


@pytest.mark.parametrize(("steps", "flags"), [(None, []), (50, ["--save_steps=50"]), ("50", ["--save_steps=50"])])
def test_checkpoints_are_asked_for_by_their_steps(steps: Any, flags: list[str]) -> None:
    args = container_of(training({}, output_uri="/out", checkpoint_steps=steps))["args"]
    assert [arg for arg in args if arg.startswith("--save_steps")] == flags


def test_a_trial_that_pushes_its_metrics_knows_where_and_has_no_collector() -> None:
    trial = template(trainer_args={"metrics_push": "Yes"})["trialSpec"]
    assert env_of(trial)["KATIB_DB_MANAGER"] == "katib-db-manager.kubeflow:6789"
    assert "kubectl.kubernetes.io/default-container" not in pod_of(trial)["metadata"]["annotations"]
    elsewhere = template(trainer_args={"metrics_push": True}, env={"KATIB_DB_MANAGER": "db:1"})["trialSpec"]
    assert env_of(elsewhere)["KATIB_DB_MANAGER"] == "db:1"
    assert "KATIB_DB_MANAGER" not in env_of(template(trainer_args={"metrics_push": False})["trialSpec"])


def test_a_trial_without_an_output_declares_no_trial_name() -> None:
    assert [entry["name"] for entry in template()["trialParameters"]] == list(SPACE)


# --- values -----------------------------------------------------------------------------------------------------


def test_values_become_the_texts_that_the_trainer_casts() -> None:
    trainer_args = {"a": True, "b": 1e-5, "c": 3, "d": ["q_proj", "v_proj"], "e": None, "f": "all-linear", "g": []}
    job = training({"learning_rate": 0.5, "packing": False}, trainer_args=trainer_args, image=OTHER)
    assert container_of(job)["args"][2:] == [
        "--a=true", "--b=1e-05", "--c=3", "--d=q_proj,v_proj", "--f=all-linear", "--learning_rate=0.5",
        "--packing=false",
    ]  # fmt: skip
    assert env_of(job)["LLMTUNE_G"] is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("lora_rank_pattern", {"q_proj": 8}, '{"q_proj": 8}'),
        ("lr_scheduler_kwargs", {"a": {"b": [True, None]}}, '{"a": {"b": [true, null]}}'),
        ("lora_layer_replication", [[0, 4], (2, 5)], "[[0, 4], [2, 5]]"),
        ("lr_scheduler_kwargs", '{"num_cycles": 2}', '{"num_cycles": 2}'),
        ("lora_layer_replication", None, None),
    ],
)
def test_what_the_trainer_reads_as_json_may_be_given_as_it_is(name: str, value: Any, text: str | None) -> None:
    for job in (training({}, trainer_args={name: value}), template(trainer_args={name: value})["trialSpec"]):
        assert env_of(job).get(f"LLMTUNE_{name.upper()}") == text


def test_hyperparameters_of_ours_may_be_json_too() -> None:
    assert env_of(training({"lora_alpha_pattern": {"q": 1}}))["LLMTUNE_LORA_ALPHA_PATTERN"] == '{"q": 1}'


@pytest.mark.parametrize("text", ["two words", "a'b", 'a"b', "a;b", "$HOME", "a|b", "*", "", "ü", "<|end|>", "~", "#"])
def test_a_value_that_a_shell_would_change_goes_by_the_environment(text: str) -> None:
    job = training({"sample_prompt": text})
    assert not any(arg.startswith("--sample_prompt") for arg in container_of(job)["args"])
    # Without a value it is empty; Katib refuses a trial in which the empty text is written.
    assert env_of(job)["LLMTUNE_SAMPLE_PROMPT"] == (text.replace("$", "$$") or None)


def expand(text: str | None) -> str:
    """What Kubernetes makes of a value: `$$` stands for `$`, none for an empty one; no reference resolves here."""
    return (text or "").replace("$$", "$")


printable = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}x", fullmatch=True), printable, max_size=5))
def test_every_text_reaches_the_trainer_unchanged(values: dict[str, str]) -> None:
    assume(not any(carries_secret(value) for value in values.values()))
    job = training(values, image=OTHER)
    container = container_of(job)
    line = " ".join(container["command"] + container["args"])  # as Katib joins them
    arrived = dict(word[2:].split("=", 1) for word in shlex.split(line)[3:])
    arrived |= {
        name.removeprefix("LLMTUNE_").lower(): expand(value)
        for name, value in env_of(job).items()
        if name.startswith("LLMTUNE_")
    }
    assert {name: arrived[name] for name in values} == values


@pytest.mark.parametrize(
    ("parameter", "in_args"),
    [
        (double(-1, 1), True),
        (integer(1, 2), True),
        (discrete([0.5, 8]), True),
        (categorical(["cosine", "linear", True, 3]), True),
        (categorical(["cosine", "two words"]), False),
        (categorical([""]), False),
    ],
)
def test_a_searched_value_goes_by_the_environment_when_one_of_its_values_must(parameter: JSON, in_args: bool) -> None:
    job = template({"setting": parameter}, image=OTHER)["trialSpec"]
    assert ("--setting=${trialParameters.setting}" in container_of(job)["args"]) == in_args
    assert ("LLMTUNE_SETTING" in env_of(job)) != in_args


def test_an_output_with_spaces_still_has_a_folder_for_each_trial() -> None:
    job = template(output_uri="/my out")["trialSpec"]
    assert fill_in(env_of(job), "exp")["LLMTUNE_OUTPUT_DIR"] == "/my out/exp/${trialParameters.trial_name}"


# --- the job ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, ["python", "-m", "llmtune_trainer"]),
        ({"num_procs_per_node": 2},
         ["torchrun", "--standalone", "--nproc_per_node=2", "-m", "llmtune_trainer"]),
        ({"job_kind": "PyTorchJob", "num_procs_per_node": 2}, ["torchrun", "-m", "llmtune_trainer"]),
        ({"evaluates": True}, ["python", "-m", "llmtune_trainer", "evaluate"]),
        ({"evaluates": True, "job_kind": "PyTorchJob"}, ["torchrun", "-m", "llmtune_trainer", "evaluate"]),
    ],
)  # fmt: skip
def test_more_processes_are_started_by_torchrun(changes: JSON, command: list[str]) -> None:
    assert container_of(training({}, **changes))["command"] == command


@pytest.mark.parametrize(
    ("resources", "processes", "threads"),
    [
        ({"cpu": 4}, 1, "4"), ({"cpu": "4"}, 2, "2"), ({"cpu": "3500m"}, 1, "3"), ({"cpu": "500m"}, 1, "1"),
        ({"cpu": 2}, 4, "1"), ({"cpu": ".5k"}, 1, "500"), ({"cpu": "1e1"}, 1, "10"), ({"memory": "1Gi"}, 1, None),
        (None, 1, None),
    ],
)  # fmt: skip
def test_threads_follow_from_the_cpu_limit(resources: Any, processes: int, threads: str | None) -> None:
    job = training({}, resources=resources, num_procs_per_node=processes)
    assert env_of(job).get("OMP_NUM_THREADS") == threads


def test_an_authors_variable_goes_before_ours() -> None:
    assert env_of(training({}, resources={"cpu": 4}, env={"OMP_NUM_THREADS": 1}))["OMP_NUM_THREADS"] == "1"


def test_resources_are_requested_and_limited_alike() -> None:
    resources = container_of(training({}, resources={"cpu": "1", "memory": "4Gi", "gpu": 1}))["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob"])
def test_a_trial_and_a_final_run_differ_in_values_only(kind: str) -> None:
    args: JSON = {"job_kind": kind, "output_uri": "/out", "resources": {"cpu": 2}, "env": {"A": "1"}}
    trial, final = (
        template(**args)["trialSpec"],
        training({"learning_rate": 0.1, "lr_scheduler_type": "linear"}, **args),
    )
    values = {
        "${trialParameters.learning_rate}": "0.1",
        "${trialParameters.lr_scheduler_type}": "linear",
        "/exp/${trialParameters.trial_name}": "",
    }
    text = json.dumps(fill_in(trial, "exp"))
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    same = json.loads(text)
    container_of(same)["args"].remove("--on_divergence=report")
    del pod_of(same)["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"]
    for role in same["spec"].get("pytorchReplicaSpecs", {}).values():
        assert role["template"]["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert {**same, "metadata": final["metadata"]} == final


def test_a_trial_is_cheap_and_stays_for_diagnosis() -> None:
    made = template(active_deadline_seconds=600, ttl_seconds_after_finished=3600)
    job = made["trialSpec"]["spec"]
    assert made["retain"] is True
    assert (job["backoffLimit"], job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) == (0, 600, 3600)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert "--on_divergence=report" in container_of(made["trialSpec"])["args"]
    assert "metadata" not in made["trialSpec"]


def test_a_time_to_live_can_be_left_to_the_cluster() -> None:
    assert "ttlSecondsAfterFinished" not in template(ttl_seconds_after_finished=None)["trialSpec"]["spec"]


def test_a_pytorch_trial_has_its_own_names_and_conditions() -> None:
    made = template(job_kind="PyTorchJob")
    assert made["primaryContainerName"] == container_of(made["trialSpec"])["name"] == "pytorch"
    assert made["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}
    assert "Succeeded" in made["successCondition"]
    assert "Complete" in template()["successCondition"]


def test_nodes_become_workers() -> None:
    spec = training({}, num_nodes=3, num_procs_per_node=2)["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    assert {role: replica["replicas"] for role, replica in replicas.items()} == {"Master": 1, "Worker": 2}
    assert spec["nprocPerNode"] == "2"
    assert spec["runPolicy"]["cleanPodPolicy"] == "Running"


def test_a_pod_template_is_merged_into_the_pod() -> None:
    override = {
        "metadata": {"labels": {"team": "nlp"}, "annotations": {"sidecar.istio.io/inject": "true"}},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "containers": [
                {"name": "training-container", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
                {"name": "proxy", "image": "proxy:1"},
            ],
        },
    }
    job = training({}, env={"A": "1"}, pod_template=override)
    pod = pod_of(job)
    assert pod["metadata"] == override["metadata"]
    assert pod["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert pod["spec"]["containers"][1] == {"name": "proxy", "image": "proxy:1"}
    assert (env_of(job)["A"], env_of(job)["B"]) == ("2", "3")
    assert container_of(job)["command"] == ["python", "-m", "llmtune_trainer"]
    assert pod["spec"]["restartPolicy"] == "Never"


def test_the_default_image_is_the_trainer_that_was_released_with_the_provider() -> None:
    source = Path(__file__).parents[3] / "trainer" / "llmtune_trainer" / "__init__.py"
    version = re.search(r'^__version__ = "(.+)"$', source.read_text(), re.MULTILINE)
    assert version is not None
    assert f"airflow-llmtune/trainer:{version[1]}" == trial_template.TRAINER_IMAGE


# --- oracles ------------------------------------------------------------------------------------------------------

EVERYTHING: JSON = {
    "model": "pvc://models/base",
    "output_uri": "pvc://work/out",
    "env": {"A": "1", "HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    "resources": {"cpu": 4, "memory": "8Gi", "gpu": 1},
    "service_account_name": "trainer",
    "trainer_args": {"sample_prompt": "It's 5$"},
    "pod_template": {"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}},
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_a_job_is_one_of_kubernetes(changes: JSON, through_job_model: Callable[[JSON], JSON]) -> None:
    for job in (training({"learning_rate": 0.1}, **changes), template(**changes)["trialSpec"]):
        assert through_job_model(job) == job


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
@pytest.mark.parametrize("kind", ["Job", "PyTorchJob"])
def test_a_pod_is_one_of_kubernetes(changes: JSON, kind: str, through_pod_model: Callable[[JSON], JSON]) -> None:
    for job in (training({"learning_rate": 0.1}, job_kind=kind, **changes), template(job_kind=kind)["trialSpec"]):
        assert through_pod_model(pod_of(job)) == pod_of(job)
