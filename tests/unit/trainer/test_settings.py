from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmtune_trainer.flags import Flag, Kind, load, text_of
from llmtune_trainer.settings import (
    HOUSEKEEPING,
    TASKS,
    Settings,
    SettingsError,
    evaluation_settings,
    parse_settings,
    usage,
)

REQUIRED = ["--model_name_or_path", "org/model", "--dataset_name", "data"]
# Heavier than a message that a flag is misspelt.
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "boto3", "numpy", "pyarrow")


def mistakes(*arguments: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        parse_settings([*REQUIRED, *arguments], environ or {})
    return raised.value.mistakes


def parse(*arguments: str) -> Settings:
    return parse_settings([*REQUIRED, *arguments], {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "2e-4", 0.0002),
        ("learning_rate", "0.00031622776601683794", 0.00031622776601683794),
        ("lora_r", "8", 8),
        ("lora_r", "8.0", 8),
        ("max_steps", "1e2", 100),
        ("lora_alpha", "16", 16.0),
        ("num_train_epochs", "0.5", 0.5),
        ("evaluate_base_model", "False", False),
        ("evaluate_base_model", "true", True),
        ("evaluate_base_model", "0", False),
        ("lora_target_modules", "all-linear", "all-linear"),
        ("lora_target_modules", "q_proj, v_proj", ["q_proj", "v_proj"]),
        ("lr_scheduler_type", "linear", "linear"),
        ("sample_prompt", "--is this a prompt=yes?", "--is this a prompt=yes?"),
        ("warmup_ratio", "0", 0.0),
        ("divergence_ratio", "none", None),
        ("divergence_ratio", "2", 2.0),
        ("dataset_train_split", "train[:1000]", "train[:1000]"),
        ("dataset_train_split", "train[10%:20%]", "train[10%:20%]"),
    ],
)
def test_strings_are_cast_by_the_type_of_the_setting(name: str, text: str, value: object) -> None:
    by_flag = getattr(parse(f"--{name}={text}"), name)
    by_environment = getattr(parse_settings(REQUIRED, {f"LLMTUNE_{name.upper()}": text}), name)
    assert by_flag == by_environment == value
    assert type(by_flag) is type(value)


@pytest.mark.parametrize(("text", "alpha"), [("r", 8.0), ("2r", 16.0), ("0.5r", 4.0), (" 1.5r ", 12.0), ("2", 2.0)])
def test_alpha_can_be_tied_to_the_rank(text: str, alpha: float) -> None:
    assert parse("--lora_r", "8", f"--lora_alpha={text}").lora_alpha == alpha
    assert parse("--lora_alpha", "2r").lora_alpha == 32


@pytest.mark.parametrize(
    ("text", "size"), [("50GiB", 50 * 2**30), ("1.5KiB", 1536), ("2TB", 2 * 10**12), ("7", 7), ("1e3", 1000)]
)
def test_a_cache_is_bounded_by_a_number_of_bytes_or_a_size(text: str, size: int) -> None:
    assert parse("--cache_dir", "/c", "--cache_max_bytes", text).cache_max_bytes == size


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("learning_rate", "fast", "a number above 0"),
        ("learning_rate", "0", "a number above 0"),
        ("learning_rate", "nan", "a number above 0"),
        ("learning_rate", "inf", "a number above 0"),
        ("learning_rate", "1_000", "a number above 0"),
        ("lora_r", "8.5", "a whole number of at least 1"),
        ("max_steps", "-1", "a whole number of at least 1"),
        ("eval_fraction", "1", "above 0 and below 1"),
        ("train_fraction", "1.5", "above 0 and of at most 1"),
        ("lora_dropout", "1", "of at least 0 and below 1"),
        ("evaluate_base_model", "maybe", "true or false"),
        ("dtype", "int4", "one of bfloat16, float32"),
        ("on_divergence", "ignore", "one of fail, report"),
        ("lora_target_modules", "q_proj,,v_proj", "separated by commas"),
        ("output_dir", " ", "text"),
        ("lora_alpha", "0r", "a multiple of lora_r"),
        ("lora_alpha", "r2", "a multiple of lora_r"),
        ("cache_max_bytes", "0GiB", "a size such as 50GiB"),
        ("cache_max_bytes", "5 apples", "a size such as 50GiB"),
        ("divergence_ratio", "1", "a number above 1, or none"),
        ("dataset_train_split", "train[1:2", "a part of it such as"),
        ("dataset_train_split", "train[a:b]", "a part of it such as"),
        ("adam_beta2", "1", "of at least 0 and below 1"),
        ("neftune_noise_alpha", "none of it", "a number above 0, or none"),
        ("lr_scheduler_kwargs", "[1]", "a JSON object"),
        ("lr_scheduler_kwargs", '{"a": NaN}', "a JSON object"),
        ("lora_rank_pattern", '{"q_proj": "big"}', "a JSON object of whole numbers of at least 1"),
        ("lora_layers_to_transform", "1,x", "whole numbers of at least 0 separated by commas"),
    ],
)
def test_a_broken_rule_names_flag_value_rule_and_fix(name: str, text: str, rule: str) -> None:
    (mistake,) = mistakes(f"--{name}={text}")
    assert mistake.startswith(f"`--{name}`={text!r} must be ")
    assert rule in mistake
    assert f"Fix: for example --{name} " in mistake


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("lr_scheduler_type", "cosin", "cosine"),
        ("optim", "adamw_torch_fuse", "adamw_torch_fused"),
        ("task", "classify", "classification"),
    ],
)
def test_a_misspelt_word_is_told_the_nearest(name: str, text: str, meant: str) -> None:
    (mistake,) = mistakes(f"--{name}", text)
    assert mistake.endswith(f"Fix: did you mean {meant}?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora_rank", "8"], ["`--lora_rank` is unknown", "did you mean --lora_r?"]),
        (["--learning-rate", "1"], ["`--learning-rate` is unknown", "did you mean --learning_rate?"]),
        (["--adam_beta", "0.9"], ["did you mean --adam_beta"]),
        (["--xyzzy", "8"], ["--help lists all settings"]),
        (["--lora_r"], ["`--lora_r` has no value", "--lora_r VALUE"]),
        (["--lora_r", "--seed", "1"], ["`--lora_r` has no value"]),
        (["--seed", "1", "--seed=2"], ["`--seed` is given twice"]),
        (["stray"], ["'stray' is no flag"]),
        (["--adapter", "/a"], ["is of `evaluate` only"]),
        (["--push_to_hub", "true"], ["cannot be set", "one place", "use --output_dir"]),
        (["--gradient_checkpointing", "true"], ["a new name", "use --activation_checkpointing"]),
        (["--bf16", "true"], ["cannot be set", "use --dtype"]),
        (["--trust_remote_code", "true"], ["cannot be set", "Fix: leave it out."]),
        (["--lora_task_type", "SEQ_CLS"], ["cannot be set", "use --task"]),
    ],
)
def test_a_mistake_in_the_command_line_says_how_to_mend_it(arguments: list[str], words: list[str]) -> None:
    (mistake,) = mistakes(*arguments)
    assert all(word in mistake for word in words)


CLASSIFICATION = ["--task", "classification"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--eval_fraction", "0.1", "--dataset_test_split", "test"], ["contradicts", "give one of the two"]),
        (["--dataset_test_split", "train"], ["is the training split"]),
        (["--dataset_test_split", "train[:10]"], ["or a part of it"]),
        (["--dataset_test_split", "train", "--dataset_train_split", "train[:10]"], ["or a part of it"]),
        (["--save_steps", "5"], ["no place for its checkpoints", "--output_dir or --checkpoint_dir"]),
        (["--checkpoint_dir", "/c"], ["stays empty", "--save_steps"]),
        (
            ["--keep_checkpoints", "true", "--save_steps", "5", "--output_dir", "/o"],
            ["has no place", "--checkpoint_dir"],
        ),
        (
            ["--keep_checkpoints", "true", "--save_steps", "5", "--checkpoint_dir", "/c"],
            ["for runs of other --max_steps", "give --max_steps"],
        ),
        (["--warmup_ratio", "0.1", "--warmup_steps", "10"], ["the same in two ways", "give one of the two"]),
        (["--use_peft", "false", "--lora_r", "8"], ["`--lora_r`=8 is about an adapter"]),
        (["--use_peft", "false", "--use_dora", "true"], ["`--use_dora`=true is about an adapter"]),
        (["--use_peft", "false", "--load_in_4bit", "true"], ["`--load_in_4bit`=true is about an adapter"]),
        (["--load_in_4bit", "true", "--load_in_8bit", "true"], ["contradicts"]),
        (["--merge_adapter", "true"], ["has no place for the model", "--output_dir"]),
        (["--cache_max_bytes", "5GiB"], ["bounds no cache", "--cache_dir"]),
        (["--lr_scheduler_type", "warmup_stable_decay"], ["needs num_decay_steps", '{"num_decay_steps": 100}']),
        (["--lr_scheduler_type", "reduce_lr_on_plateau"], ["--eval_steps"]),
        (["--lora_layers_to_transform", "0,1"], ["needs the modules by name"]),
        (["--lora_init_lora_weights", "loftq"], ["is half of LoftQ", "--lora_loftq_config"]),
        (["--lora_loftq_config", '{"loftq_bits": 4}'], ["is half of LoftQ", "--lora_init_lora_weights loftq"]),
        (["--lora_layers_pattern", "layers"], ["--lora_layers_to_transform"]),
        ([*CLASSIFICATION, "--packing", "true"], ["`--packing`='true' is of --task sft, and this is classification"]),
        ([*CLASSIFICATION, "--sample_prompt", "Hi"], ["is of --task sft or dpo"]),
        (["--beta", "0.1"], ["is of --task dpo, and this is sft"]),
        (["--task", "dpo", "--loss_weights", "1,2"], ["one weight for each of --loss_type"]),
        (["--fsdp", "true", "--evaluate_base_model", "true"], ["needs the whole model", "--fsdp shards it"]),
        (["--fsdp", "true", "--sample_prompt", "Hi"], ["needs the whole model", "Fix: leave it out"]),
        (["--fsdp_config", "{}"], ["says how --fsdp shards"]),
        (["--fsdp", "true", "--load_in_8bit", "true"], ["that --fsdp cannot shard", "use --load_in_4bit"]),
        (["--dataloader_prefetch_factor", "2"], ["there are none", "give --dataloader_num_workers"]),
        (["--dataloader_persistent_workers", "true", "--dataloader_num_workers", "0"], ["there are none"]),
    ],
)
def test_settings_that_are_right_one_by_one_may_contradict_each_other(arguments: list[str], words: list[str]) -> None:
    (mistake,) = mistakes(*arguments)
    assert all(word in mistake for word in words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset_train_split", "train[:90%]", "--dataset_test_split", "train[90%:]"],
        ["--use_peft", "false", "--load_in_4bit", "false"],
        ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-6}'],
        ["--lora_layers_to_transform", "0,1", "--lora_target_modules", "q_proj"],
        ["--task", "dpo", "--loss_type", "sigmoid,sft", "--loss_weights", "1,0.5"],
        ["--lora_layers_to_transform", "none"],
        ["--cache_max_bytes", "5GiB", "--cache_dir", "s3://b/c"],
        ["--fsdp", "false", "--evaluate_base_model", "true"],
        ["--dataloader_prefetch_factor", "2", "--dataloader_num_workers", "1"],
    ],
)
def test_what_looks_like_a_contradiction_and_is_none(arguments: list[str]) -> None:
    parse(*arguments)


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--checkpoint_dir", "/c", "--save_steps", "often"], "save_steps"),
        (["--use_peft", "perhaps", "--lora_r", "8"], "use_peft"),
        (["--dataset_train_split", "a[b", "--dataset_test_split", "train"], "dataset_train_split"),
        (["--task", "dpo", "--loss_type", "x,y", "--loss_weights", "1,2"], "loss_type"),
    ],
)
def test_of_what_cannot_be_read_nothing_else_is_told(arguments: list[str], flag: str) -> None:
    (mistake,) = mistakes(*arguments)
    assert mistake.startswith(f"`--{flag}`=")


def test_what_else_is_wrong_is_told_with_it() -> None:
    told = mistakes("--use_peft", "false", "--lora_r", "many", "--lora_dropout", "0.1")
    assert [mistake.partition("=")[0] for mistake in told] == ["`--lora_r`", "`--lora_dropout`"]


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError, match="The settings have 8 mistakes") as raised:
        parse_settings(
            [
                *("--learning_rate", "x", "--lora_r", "0", "--lr", "1", "--push_to_hub", "true", "--beta", "1"),
                *("--save_steps", "5"),
            ],
            {},
        )
    text = str(raised.value)
    required = ["`--model_name_or_path` is missing", "`--dataset_name` is missing"]
    for words in ("'x'", "'0'", "`--lr`", "`--push_to_hub`", "`--beta`", "`--save_steps`", *required):
        assert words in text


def test_mistakes_are_told_before_anything_heavy_is_imported() -> None:
    """And what a run imports to tell them takes no longer than Python itself."""
    program = (
        "import sys; from llmtune_trainer.settings import parse_settings, SettingsError\n"
        "try: parse_settings(['--learning_rat', '1', '--lora_r', 'x', '--packing', '2'], {})\n"
        "except SettingsError as error: assert len(error.mistakes) == 5, error\n"
        f"print(sorted(set(sys.modules) & {set(HEAVY)!r}), len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy, _, count = done.stdout.strip().rpartition(" ")
    assert heavy == "[]"
    assert int(count) < 200


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_not_set() -> None:
    environ = {"LLMTUNE_SEED": "1", "LLMTUNE_LORA_R": "", "LLMTUNE_TERMINATION_LOG": "/log", "LLMTUNE_OTHER_TOOL": "x"}
    settings = parse_settings([*REQUIRED, "--seed", "2"], environ)
    assert (settings.seed, settings.lora_r) == (2, 16)


def test_hyperparameters_also_come_from_the_environment() -> None:
    assert parse_settings(REQUIRED, {"LLMTUNE_ADAM_BETA2": "0.95"}).hyperparameters == {"adam_beta2": 0.95}


def test_a_near_miss_in_the_environment_is_a_mistake() -> None:
    (mistake,) = mistakes(environ={"LLMTUNE_LEARNING_RATES": "1e-3"})
    assert "did you mean LLMTUNE_LEARNING_RATE?" in mistake


def test_a_bad_value_of_the_environment_is_named_by_its_variable() -> None:
    (mistake,) = mistakes(environ={"LLMTUNE_LORA_R": "many"})
    assert mistake.startswith("`LLMTUNE_LORA_R`='many'")


def test_each_class_gets_its_own_hyperparameters_by_its_own_names() -> None:
    settings = parse(
        *(
            "--adam_beta2",
            "0.95",
            "--packing",
            "true",
            "--optim",
            "sgd",
            "--lora_bias",
            "all",
            "--lora_lora_bias",
            "true",
        ),
        *("--use_rslora", "True", "--lora_rank_pattern", '{"q_proj": 4}', "--loss_type", "dft", "--max_grad_norm", "1"),
    )
    trained = {"adam_beta2": 0.95, "optim": "sgd", "max_grad_norm": 1.0}
    assert settings.passed_to("TrainingArguments") == trained
    assert settings.passed_to("SFTConfig") == {**trained, "packing": True, "loss_type": "dft"}
    assert settings.passed_to("LoraConfig") == {
        "bias": "all",
        "lora_bias": True,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 4},
    }
    assert settings.chosen() == {**settings.hyperparameters, "divergence_ratio": None}


def test_a_hyperparameter_of_two_tasks_is_read_as_the_task_has_it() -> None:
    assert parse("--task", "dpo", "--loss_type", "ipo,sft").passed_to("DPOConfig") == {"loss_type": ["ipo", "sft"]}
    (mistake,) = mistakes("--loss_type", "ipo,sft")
    assert "must be one of nll, dft" in mistake


def test_a_loss_that_rises_before_it_falls_is_no_divergence() -> None:
    assert parse("--loss_type", "dft").divergence_ratio is None
    assert parse("--loss_type", "dft", "--divergence_ratio", "9").divergence_ratio == 9
    assert parse("--loss_type", "nll").divergence_ratio == 3


def test_what_was_chosen_leaves_out_defaults_and_addresses() -> None:
    settings = parse("--lora_r", "8", "--seed", "42", "--cache_dir", "/c", "--metrics_format", "json", "--tf32", "none")
    assert settings.chosen() == {"lora_r": 8, "tf32": None}


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("model_name_or_path", "required"),
        ("max_steps", "default: none"),
        ("train_fraction", "default: 1.0"),
        ("gradient_accumulation_steps", "default: 1"),
        ("lora_dropout", "default: 0.0"),
        ("evaluate_base_model", "default: false"),
        ("packing", "default: false; sft"),
        ("max_grad_norm", "default: 1.0"),
    ],
)
def test_the_help_shows_defaults_as_they_are_written(name: str, default: str) -> None:
    assert f"  --{name}  ({default})\n" in usage()


def test_the_help_lists_every_setting_with_a_valid_example() -> None:
    text = usage()
    for flag in load().flags:
        assert re.search(rf"^  --{flag.name}  \(", text, re.MULTILINE)
        flag.kind.cast(flag.kind.example)


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
    assert parse(*arguments).checkpoint_place == place


def test_an_evaluation_takes_what_its_loss_depends_on_and_nothing_else() -> None:
    arguments = [*REQUIRED, "--adapter", "/a", "--max_length", "64", "--cache_dir", "/c"]
    settings = parse_settings(arguments, {}, "evaluate")
    assert (settings.adapter, settings.max_length, settings.cache_dir) == ("/a", 64, "/c")
    with pytest.raises(SettingsError) as raised:
        parse_settings([*REQUIRED, "--lora_r", "8", "--packing", "true"], {"LLMTUNE_SEED": "1"}, "evaluate")
    assert sorted(raised.value.mistakes) == [
        "`--lora_r`='8' has no part in an evaluation. Fix: leave it out.",
        "`--packing`='true' has no part in an evaluation. Fix: leave it out.",
        "`LLMTUNE_SEED`='1' has no part in an evaluation. Fix: leave it out.",
    ]


def test_the_help_names_each_setting_of_an_evaluation() -> None:
    _, _, listed = usage().partition("evaluate takes of these:\n")
    taken = [*evaluation_settings(), *HOUSEKEEPING]
    assert re.findall(r"^  --(\w+)$", listed, re.MULTILINE) == taken
    assert {flag.name for flag in load().flags} > set(taken)


repeatable = settings(derandomize=True, database=None, deadline=None)
WORDS = st.sampled_from(
    [
        *("", " ", '{"a": 1}', "{}", "[1]", "true", "False", "none", "8.0", "8", "-1", "0", "1e-3", "2r", "a,b"),
        *("50GiB", "cosine"),
    ]
)


def read(name: str, text: str) -> tuple[Settings | None, tuple[str, ...]]:
    try:
        return parse_settings([*required_but(name), f"--{name}={text}"], {}), ()
    except SettingsError as error:
        return None, error.mistakes


@repeatable
@given(st.sampled_from(load().flags), WORDS | st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_text_gives_a_value_or_one_clear_mistake(flag: Flag, text: str) -> None:
    made, told = read(flag.name, text)
    assert all("Fix: " in mistake and len(mistake) < 2000 for mistake in told)
    if made is None:
        assert any(mistake.startswith(f"`--{flag.name}`") for mistake in told) or flag.name == "task"
    elif not flag.classes:
        assert flag.kind.none or getattr(made, flag.name) is not None
    else:
        assert flag.name in made.hyperparameters


def required_but(name: str) -> list[str]:
    given_for = [f"--{one}=x" for one in ("model_name_or_path", "dataset_name") if one != name]
    task = next(flag.tasks for flag in load().flags if flag.name == name)[0]
    return given_for if name == "task" else [*given_for, f"--task={task}"]


def numbers_of(kind: Kind) -> dict[str, st.SearchStrategy[Any]]:
    low = kind.above if kind.minimum is None else kind.minimum
    high = kind.below if kind.maximum is None else kind.maximum
    floats = st.floats(
        low,
        high,
        exclude_min=kind.above is not None,
        exclude_max=kind.below is not None,
        allow_nan=False,
        allow_infinity=False,
    )
    return {"integer": st.integers(None if low is None else int(low)), "number": floats, "boolean": st.booleans()}


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    texts = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1).map(str.strip).filter(bool)
    plain = {**numbers_of(kind), "text": texts, "choice": st.sampled_from(kind.choices or ("",))}
    items = plain.get(kind.items or "", st.integers())
    return {
        **plain,
        "list": st.lists(items, min_size=1),
        "object": st.dictionaries(st.text(), items),
        "json": st.lists(st.integers()),
        "pattern": st.just(kind.example),
    }[kind.type]


@repeatable
@given(st.sampled_from(load().flags), st.data())
def test_a_value_written_as_a_flag_takes_it_is_read_as_the_same(flag: Flag, data: st.DataObject) -> None:
    value = data.draw(values_of(flag.kind))
    text = json.dumps(value) if flag.kind.type == "json" else text_of(value)
    assume(not (flag.kind.none and text.lower() == "none"))
    assert flag.kind.cast(text) == value


def test_every_task_is_one_of_a_flag() -> None:
    assert {task for flag in load().flags for task in flag.tasks} == set(TASKS)


def test_what_may_not_be_set_may_be_a_secret_and_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(["--hub_token", "hf_planted", "--hub_token", "hf_again"], {"LLMTUNE_HUB_TOKEN": "hf_third"})
    assert "`--hub_token` is given twice" in str(caught.value)
    assert "hf_" not in str(caught.value)
