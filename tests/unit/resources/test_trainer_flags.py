"""What the operators say of flags of our own trainer, before a pod starts; and that the trainer says the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources import trainer_flags
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.trainer_spec import TrainerSpec
from airflow_llmtune.resources.trial_template import training_manifest, trial_template
from llmtune_trainer.flags import load
from llmtune_trainer.settings import SettingsError, parse_settings

OURS = "airflow-llmtune/trainer"
REQUIRED = ["--model_name_or_path=m", "--dataset_name=d"]


def told(trainer_args: Any = None, parameters: Any = None, **changes: Any) -> list[str]:
    """Return the mistakes, as the author reads them."""
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, model="/m", dataset="/d", trainer_args=trainer_args, **changes)
    if parameters is not None:
        trial_template(spec, SearchSpace.from_json(parameters, problems), problems)
    return [str(error) for error in problems.errors]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rat", 1e-4, ["is no setting of the trainer", "did you mean `learning_rate`?"]),
        ("xyzzy", 1, ["is no setting of the trainer", "docs/reference/trainer.md lists all"]),
        ("lora_r", "eight", ["must be a whole number of at least 1", "give such as 16"]),
        ("lora_r", 8.5, ["must be a whole number"]),
        ("lora_r", True, ["must be a whole number"]),
        ("lora_dropout", 1, ["must be a number of at least 0 and below 1"]),
        ("optim", "adamw_torch_fuse", ["must be one of", "did you mean `adamw_torch_fused`?"]),
        ("packing", "maybe", ["must be true or false"]),
        ("lora_alpha", "r2", ["a multiple of lora_r"]),
        ("dataset_test_split", "a[1", ["the name of a split"]),
        ("lora_rank_pattern", '{"q": "x"}', ["a JSON object of whole numbers"]),
        ("lr_scheduler_kwargs", '{"a": NaN}', ["a JSON object"]),
        ("push_to_hub", True, ["cannot be set: the result goes to one place", "use `output_uri`"]),
        ("bf16", True, ["cannot be set", "use `trainer_args.dtype`"]),
        ("use_cpu", True, ["cannot be set", "leave it out"]),
        ("beta", 0.1, ["is of the task dpo, and this is sft"]),
        ("task", "sftt", ["did you mean `sft`?"]),
    ],
)
def test_a_bad_setting_is_told_with_rule_and_fix(name: str, value: Any, words: list[str]) -> None:
    (mistake,) = told({name: value})
    assert mistake.startswith(f"`trainer_args.{name}`=")
    assert all(word in mistake for word in words), mistake


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-4),
        ("learning_rate", "1e-4"),
        ("lora_r", 8.0),
        ("lora_r", "8"),
        ("lora_alpha", "2r"),
        ("use_peft", False),
        ("use_peft", "False"),
        ("lora_target_modules", ["q_proj", "v_proj"]),
        ("lora_target_modules", "all-linear"),
        ("lora_init_lora_weights", True),
        ("lora_init_lora_weights", "pissa_niter_16"),
        ("divergence_ratio", "none"),
        ("lr_scheduler_kwargs", '{"num_cycles": 2}'),
        ("lora_layer_replication", "[[0, 4]]"),
        ("max_steps", None),
        ("sample_prompt", ""),
    ],
)
def test_a_good_setting_is_no_mistake(name: str, value: Any) -> None:
    assert told({name: value}) == []


@pytest.mark.parametrize(
    ("name", "parameter", "words"),
    [
        ("learning_rat", search.log_uniform(1e-5, 1e-3), ["did you mean `learning_rate`?"]),
        ("learning_rate", search.double(0, 1), ["parameters.learning_rate.min`=0", "must be a number above 0"]),
        ("lora_dropout", search.double(0, 1), ["parameters.lora_dropout.max`=1", "below 1"]),
        ("lora_r", search.double(4, 64), ["gives fractions", "use integer(min, max)"]),
        ("lora_r", search.double(4, 64, step=0.5), ["gives fractions"]),
        ("lora_r", search.integer(0, 64), ["parameters.lora_r.min`=0", "of at least 1"]),
        ("lora_r", search.discrete([8, 0.5]), ["parameters.lora_r.values[1]`=0.5"]),
        ("lr_scheduler_type", search.categorical(["cosine", "linea"]), ["values[1]", "did you mean `linear`?"]),
        ("use_dora", search.integer(0, 1), ["is no number: it must be true or false", "use categorical"]),
        ("use_dora", search.categorical(["yes", "perhaps"]), ["parameters.use_dora.values[1]`='perhaps'"]),
        ("eval_fraction", search.double(0.1, 0.2), ["is not searched", "`trainer_args.eval_fraction`"]),
        ("beta", search.double(0.1, 0.2), ["is of the task dpo, and this is sft"]),
        ("fp16", search.categorical([True, False]), ["cannot be set", "use `trainer_args.dtype`"]),
    ],
)
def test_a_bad_parameter_is_told_before_it_is_searched(name: str, parameter: Any, words: list[str]) -> None:
    (mistake,) = told(parameters={name: parameter})
    assert mistake.startswith(f"`parameters.{name}")
    assert all(word in mistake for word in words), mistake


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("learning_rate", search.log_uniform(1e-5, 1e-3)),
        ("lora_r", search.integer(4, 64)),
        ("lora_r", search.double(8, 64, step=8)),
        ("lora_r", search.discrete([8, "16", 32.0])),
        ("lora_alpha", search.categorical(["r", "2r", 32])),
        ("use_dora", search.categorical([True, False])),
        ("optim", search.categorical(["adamw_torch", "sgd"])),
        ("lora_target_modules", search.categorical(["all-linear", "q_proj,v_proj"])),
        ("max_steps", search.integer(1, 100)),
        ("adam_beta2", search.double(0.9, 0.999)),
    ],
)
def test_a_good_parameter_is_no_mistake(name: str, parameter: Any) -> None:
    assert told(parameters={name: parameter}) == []


def test_the_task_says_which_settings_there_are() -> None:
    assert told({"task": "dpo", "beta": 0.1, "loss_type": ["sigmoid", "sft"]}) == []
    assert told({"task": "dpo"}, {"beta": search.double(0.01, 0.5)}) == []
    (mistake,) = told({"task": "classification", "packing": True})
    assert "is of the task sft, and this is classification" in mistake
    (mistake,) = told({"task": "sft", "loss_type": "ipo"})
    assert "must be one of nll, dft" in mistake


def test_an_evaluation_takes_only_what_it_depends_on() -> None:
    assert told({"max_length": 64, "dtype": "float32", "max_malformed_fraction": 0.1}, evaluates=True) == []
    (mistake,) = told({"lora_r": 8}, evaluates=True)
    assert mistake == "`trainer_args.lora_r`='8' has no part in an evaluation. Fix: leave it out"


def test_what_a_search_has_found_is_checked_as_well() -> None:
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, model="/m", dataset="/d")
    training_manifest(spec, "n", "ns", {}, {}, {"learning_rate": "fast", "lora_rank": 8}, problems)
    assert [error.argument for error in problems.errors] == [
        "hyperparameters.learning_rate",
        "hyperparameters.lora_rank",
    ]


def test_all_mistakes_are_told_at_once() -> None:
    mistakes = told({"learning_rat": 1, "lora_dropout": 2}, {"lora_r": search.double(1, 8), "lr": search.double(1, 2)})
    assert [mistake.partition("=")[0] for mistake in mistakes] == [
        "`trainer_args.learning_rat`",
        "`trainer_args.lora_dropout`",
        "`parameters.lora_r`",
        "`parameters.lr`",
    ]


IMAGES = {
    OURS: True,
    f"{OURS}:0.1.0": True,
    f"registry.example:5000/team/{OURS}:0.1.0@sha256:abc": True,
    f"{OURS}@sha256:abc": True,
    "stand-in/trainer:1": False,
    "example.com/trainer": False,
    "my-airflow-llmtune/trainer": False,
    f"{OURS}-gpu:1": False,
    f"{OURS}/more": False,
}


@pytest.mark.parametrize(("image", "ours"), IMAGES.items())
def test_only_our_own_trainers_settings_are_known(image: str, ours: bool) -> None:
    mistakes = told({"nap": 1, "lora_r": "many"}, {"zeal": search.double(0, 1)}, image=image)
    assert len(mistakes) == (3 if ours else 0)


# --- the trainer itself -------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "true",
                "False",
                "yes",
                "0",
                "1",
                "none",
                "None",
                "8.0",
                "-8",
                " 8 ",
                "1_0",
                "1e3",
                "nan",
                "inf",
                "1e400",
            ),
            *(
                "r",
                "2r",
                "0r",
                "a,b",
                "a,,b",
                "1,2",
                "50GiB",
                "auto",
                "all-linear",
                "train[:10]",
                "train[1",
                "{}",
                "[]",
            ),
            *('{"a": 1}', '{"a": 0}', '{"a": "1"}', '{"a": [NaN]}', "[" * 5000, "٣", "9" * 5000, "pissa_niter_8"),
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.floats().map(repr),
    st.integers().map(str),
    st.lists(st.integers()).map(str),
    st.dictionaries(st.text(), st.integers()).map(str),
)
# Sources have arguments of their own; the rest of the trainer's rules is about several flags together.
FLAGS = [flag for flag in load().flags if flag.name not in ("model_name_or_path", "dataset_name", "task", "adapter")]


@given(st.sampled_from(FLAGS), TEXTS | st.sampled_from(FLAGS).map(lambda flag: flag.kind.example))
def test_operators_and_trainer_take_the_same_texts(flag: Any, text: str) -> None:
    problems = Problems()
    trainer_flags.check_flags("trainer_args", {flag.name: text}, trainer_flags.Run(flag.tasks[0]), problems)
    try:
        parse_settings([*REQUIRED, f"--task={flag.tasks[0]}", f"--{flag.name}={text}"], {})
    except SettingsError as error:
        rules = [mistake for mistake in error.mistakes if flag.kind.rule() in mistake]
    else:
        rules = []
    assert bool(problems.errors) == bool(rules)


@given(st.sampled_from(sorted(load().refused)), TEXTS)
def test_operators_and_trainer_refuse_the_same_names(name: str, text: str) -> None:
    problems = Problems()
    trainer_flags.check_flags("trainer_args", {name: text}, trainer_flags.Run(), problems)
    assert [error.rule.partition(":")[0] for error in problems.errors] == ["cannot be set"]
