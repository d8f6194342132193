"""The schema and the installed classes of transformers, TRL and PEFT."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig
from transformers import TrainingArguments
from trl import DPOConfig, SFTConfig

from airflow_llmtune.resources.adapter import check_servable
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_metrics import OBJECTIVES
from llmtune_trainer import saving, schema
from llmtune_trainer.arguments import training_arguments
from llmtune_trainer.flags import SCHEMA, Kind, load
from llmtune_trainer.hyperparameters import DEFAULTS, Refusal
from llmtune_trainer.rules import Rule
from llmtune_trainer.schema import SchemaError
from llmtune_trainer.settings import TASKS, parse_settings
from llmtune_trainer.tasks import worst

CLASSES = {each.__name__: each for each in (TrainingArguments, SFTConfig, DPOConfig, LoraConfig)}
# These do not go on this machine, or not alone.
NEEDS = {
    "tf32": "a GPU",
    "fsdp": "several processes",
    "lora_loftq_config": "--lora_init_lora_weights loftq",
    "lora_layers_pattern": "--lora_layers_to_transform",
    "loss_weights": "as many of --loss_type",
    "lora_velora_config": "fields of its own",
    "lora_use_bdlora": "fields of its own",
    "lora_kasa_config": "fields of its own",
    "lora_monteclora_config": "fields of its own",
    "dataloader_prefetch_factor": "--dataloader_num_workers",
}
# The classes make something else of these.
REWRITTEN = ("dataloader_pin_memory", "pad_to_multiple_of", "torch_compile")


def test_the_files_are_what_the_installed_classes_give() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema.schema(), "python -m llmtune_trainer.schema writes both"


@pytest.mark.parametrize("class_name", CLASSES)
def test_each_class_takes_what_its_flags_are_read_as(class_name: str, tmp_path: Path) -> None:
    flags = [flag for flag in load().flags if class_name in flag.classes and flag.name not in NEEDS]
    given = {str(flag.field): flag.kind.cast(flag.kind.example) for flag in flags}
    by_us: dict[str, Any] = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
    }
    if class_name == "LoraConfig":
        by_us = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    made = CLASSES[class_name](**by_us | given)
    for flag in flags:
        value, kept = given[str(flag.field)], getattr(made, str(flag.field))
        assert flag.name in REWRITTEN or kept == (set(value) if isinstance(kept, set) else value), flag.name


def test_the_defaults_that_are_told_are_those_of_the_trainer(tmp_path: Path) -> None:
    settings = parse_settings(["--model_name_or_path=m", "--dataset_name=d"], {})
    given = {"padding_free": True} | training_arguments(settings, tmp_path, "SFTConfig")
    assert {name: given[name] for name in DEFAULTS} == DEFAULTS


def test_given_hyperparameters_reach_the_arguments(tmp_path: Path) -> None:
    flags = ["--adam_beta2=0.95", "--logging_steps=5", "--warmup_steps=0.25", "--lora_bias=all"]
    settings = parse_settings(["--model_name_or_path=m", "--dataset_name=d", *flags], {})
    given = training_arguments(settings, tmp_path, "SFTConfig")
    assert (given["adam_beta2"], given["logging_steps"], given["warmup_steps"]) == (0.95, 5, 0.25)
    assert settings.passed_to("LoraConfig") == {"bias": "all"}


@pytest.mark.parametrize(
    ("table", "entry", "told"),
    [
        ("BOUNDS", {"no_such_flag": {"minimum": 0}}, r"no class has a field for \['no_such_flag'\]"),
        ("KINDS", {"lora_r": Kind()}, r"not for the tables: \['lora_r'\]"),
        ("LR_SCHEDULERS", ("linear",), "is not SchedulerType"),
        ("REFUSED", (Refusal("old", None, ("evaluation_strategy",)),), "evaluation_strategy"),
        ("RULES", (Rule(("seed", "peft_*"), "a", "b", without={"sed": ()}),), r"no flag: \['peft_\*', 'sed'\]"),
    ],
)
def test_tables_that_are_out_of_date_are_told(
    table: str, entry: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = getattr(schema, table)
    joined = (
        {**before, **entry} if isinstance(before, dict) else entry if table == "LR_SCHEDULERS" else (*before, *entry)
    )
    monkeypatch.setattr(schema, table, joined)
    with pytest.raises(SchemaError, match=told):
        schema.schema()


def test_a_field_that_nobody_can_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class NewConfig:
        strange: complex = 0j

    monkeypatch.setattr(schema, "CLASSES", (*schema.CLASSES, (NewConfig, ("sft",))))
    with pytest.raises(SchemaError, match="strange: what is a value of type"):
        schema.schema()


def test_a_new_field_becomes_a_flag_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class NewConfig:
        fresh: float | None = None

    monkeypatch.setattr(schema, "CLASSES", (*schema.CLASSES, (NewConfig, ("sft",))))
    assert '"name": "fresh",' in schema.schema()


@pytest.mark.parametrize("task", TASKS)
def test_the_operator_knows_each_metric_of_the_task_and_which_way_it_is_better(task: str) -> None:
    better = {name: "minimize" if value > 0 else "maximize" for name, value in worst(task).items()}
    assert {**OBJECTIVES[task], "train_loss": "minimize"} == better


# What the trainer says first of a reason, and what the operator calls the setting behind it.
REASONS = {
    "task": "task",
    "bias": "lora_bias",
    "modules_to_save": "lora_modules_to_save",
    "use_dora:": "use_dora",
    "rank": "lora_r",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bias", ["none", "lora_only"])
@pytest.mark.parametrize("modules", ["none", "lm_head,embed_tokens"])
@pytest.mark.parametrize("dora", ["false", "true"])
@pytest.mark.parametrize("rank", ["--lora_r=512", "--lora_r=513", '--lora_rank_pattern={"q_proj": 600}'])
def test_operator_and_trainer_refuse_the_same_adapters_to_vllm(
    task: str, bias: str, modules: str, dora: str, rank: str
) -> None:
    flags = [f"--task={task}", f"--lora_bias={bias}", f"--lora_modules_to_save={modules}", f"--use_dora={dora}", rank]
    settings = parse_settings(["--model_name_or_path=m", "--dataset_name=d", *flags], {})
    config = LoraConfig(r=settings.lora_r, **settings.passed_to("LoraConfig"))
    trained = SimpleNamespace(model=SimpleNamespace(peft_config={"default": config}))
    by_trainer = [REASONS[reason.split()[0]] for reason in saving.unservable(trained, settings)]
    problems = Problems()
    check_servable({"parameters": json.loads(json.dumps(settings.chosen()))}, None, problems)
    assert [error.argument.rpartition(".")[2] for error in problems.errors] == by_trainer
