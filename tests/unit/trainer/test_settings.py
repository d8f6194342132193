from __future__ import annotations

import re
from dataclasses import fields

import pytest

from llmtune_trainer.settings import EVALUATION_SETTINGS, Settings, SettingsError, parse_settings, usage

REQUIRED = ["--model_name_or_path", "org/model", "--dataset_name", "data"]


def mistakes(*arguments: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        parse_settings([*REQUIRED, *arguments], environ or {})
    return raised.value.mistakes


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "2e-4", 0.0002),
        ("learning_rate", "0.00031622776601683794", 0.00031622776601683794),
        ("lora_r", "8", 8),
        ("lora_alpha", "16", 16.0),
        ("num_train_epochs", "0.5", 0.5),
        ("evaluate_base_model", "False", False),
        ("evaluate_base_model", "true", True),
        ("evaluate_base_model", "0", False),
        ("lora_target_modules", "all-linear", "all-linear"),
        ("lora_target_modules", "q_proj, v_proj", ("q_proj", "v_proj")),
        ("lr_scheduler_type", "linear", "linear"),
        ("sample_prompt", "--is this a prompt=yes?", "--is this a prompt=yes?"),
        ("warmup_ratio", "0", 0.0),
    ],
)
def test_strings_are_cast_by_the_type_of_the_setting(name: str, text: str, value: object) -> None:
    by_flag = getattr(parse_settings([*REQUIRED, f"--{name}={text}"], {}), name)
    by_environment = getattr(parse_settings(REQUIRED, {f"LLMTUNE_{name.upper()}": text}), name)
    assert by_flag == by_environment == value
    assert type(by_flag) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("learning_rate", "fast", "a number above 0"),
        ("learning_rate", "0", "a number above 0"),
        ("learning_rate", "nan", "a number above 0"),
        ("learning_rate", "inf", "a number above 0"),
        ("lora_r", "8.5", "a whole number of at least 1"),
        ("max_steps", "-1", "a whole number of at least 1"),
        ("eval_fraction", "1", "above 0 and below 1"),
        ("train_fraction", "1.5", "above 0 and at most 1"),
        ("lora_dropout", "1", "from 0 to below 1"),
        ("evaluate_base_model", "maybe", "true or false"),
        ("dtype", "float16", "one of bfloat16, float32"),
        ("on_divergence", "ignore", "one of fail, report"),
        ("lora_target_modules", "q_proj,,v_proj", "separated by commas"),
        ("output_dir", " ", "must not be empty"),
    ],
)
def test_a_broken_rule_names_flag_value_rule_and_fix(name: str, text: str, rule: str) -> None:
    (mistake,) = mistakes(f"--{name}={text}")
    assert mistake.startswith(f"`--{name}`={text!r} must ")
    assert rule in mistake
    assert f"Fix: for example --{name} " in mistake


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora_rank", "8"], ["`--lora_rank` is unknown", "did you mean --lora_r?"]),
        (["--learning-rate", "1"], ["`--learning-rate` is unknown", "did you mean --learning_rate?"]),
        (["--xyzzy", "8"], ["--help lists all settings"]),
        (["--lora_r"], ["`--lora_r` has no value", "--lora_r 16"]),
        (["--lora_r", "--seed", "1"], ["`--lora_r` has no value"]),
        (["--seed", "1", "--seed=2"], ["given twice ('1', '2')"]),
        (["stray"], ["'stray' is no flag"]),
        (["--eval_fraction", "0.1", "--dataset_test_split", "test"], ["contradicts", "give one of the two"]),
        (["--dataset_test_split", "train"], ["is the training split"]),
        (["--save_steps", "5"], ["no place for its checkpoints", "--output_dir or --checkpoint_dir"]),
        (["--checkpoint_dir", "/c"], ["stays empty", "--save_steps"]),
        (["--adapter", "/a"], ["is of `evaluate` only"]),
    ],
)
def test_a_mistake_in_the_command_line_says_how_to_mend_it(arguments: list[str], words: list[str]) -> None:
    (mistake,) = mistakes(*arguments)
    assert all(word in mistake for word in words)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError, match="The settings have 5 mistakes") as raised:
        parse_settings(["--learning_rate", "x", "--lora_r", "0", "--lr", "1"], {})
    text = str(raised.value)
    for words in ("'x'", "'0'", "`--lr`", "`--model_name_or_path` is missing", "`--dataset_name` is missing"):
        assert words in text


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_not_set() -> None:
    environ = {"LLMTUNE_SEED": "1", "LLMTUNE_LORA_R": "", "LLMTUNE_TERMINATION_LOG": "/log", "LLMTUNE_OTHER_TOOL": "x"}
    settings = parse_settings([*REQUIRED, "--seed", "2"], environ)
    assert (settings.seed, settings.lora_r) == (2, 16)


def test_a_near_miss_in_the_environment_is_a_mistake() -> None:
    (mistake,) = mistakes(environ={"LLMTUNE_LEARNING_RATES": "1e-3"})
    assert "did you mean LLMTUNE_LEARNING_RATE?" in mistake


def test_a_bad_value_of_the_environment_is_named_by_its_variable() -> None:
    (mistake,) = mistakes(environ={"LLMTUNE_LORA_R": "many"})
    assert mistake.startswith("`LLMTUNE_LORA_R`='many'")


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("model_name_or_path", "required"),
        ("max_steps", "default: none"),
        ("train_fraction", "default: 1.0"),
        ("gradient_accumulation_steps", "default: 1"),
        ("lora_dropout", "default: 0.0"),
        ("evaluate_base_model", "default: false"),
    ],
)
def test_the_help_shows_defaults_as_they_are_written(name: str, default: str) -> None:
    assert f"  --{name}  ({default})\n" in usage()


def test_the_help_lists_every_setting_with_a_valid_example() -> None:
    text = usage()
    for option in fields(Settings):
        assert re.search(rf"^  --{option.name}  \(", text, re.MULTILINE)
        option.metadata["rule"].cast(option.metadata["rule"].example)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ([], None),
        (["--output_dir", "/out/"], None),
        (["--output_dir", "/out/", "--save_steps", "5"], "/out/.checkpoints"),
        (["--output_dir", "s3://b/out", "--save_steps", "5"], "s3://b/out/.checkpoints"),
        (["--output_dir", "/out", "--save_steps", "5", "--checkpoint_dir", "/other"], "/other"),
    ],
)
def test_checkpoints_have_one_place(arguments: list[str], place: str | None) -> None:
    assert parse_settings([*REQUIRED, *arguments], {}).checkpoint_place == place


def test_an_evaluation_takes_what_its_loss_depends_on_and_nothing_else() -> None:
    settings = parse_settings([*REQUIRED, "--adapter", "/a", "--max_length", "64"], {}, "evaluate")
    assert (settings.adapter, settings.max_length) == ("/a", 64)
    with pytest.raises(SettingsError) as raised:
        parse_settings([*REQUIRED, "--lora_r", "8"], {"LLMTUNE_SEED": "1"}, "evaluate")
    assert sorted(raised.value.mistakes) == [
        "`--lora_r`='8' has no part in an evaluation. Fix: leave it out.",
        "`LLMTUNE_SEED`='1' has no part in an evaluation. Fix: leave it out.",
    ]


def test_the_help_names_each_setting_of_an_evaluation() -> None:
    _, _, listed = usage().partition("evaluate takes of these:\n")
    assert re.findall(r"^  --(\w+)$", listed, re.MULTILINE) == list(EVALUATION_SETTINGS)
    assert {option.name for option in fields(Settings)} > set(EVALUATION_SETTINGS)
