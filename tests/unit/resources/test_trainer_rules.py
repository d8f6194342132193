"""What the operators say of trainer flags that contradict each other; and that the trainer says the same of them."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.trainer_flags import Run
from airflow_llmtune.resources.trainer_rules import Given, check_together
from airflow_llmtune.resources.trainer_spec import TrainerSpec
from airflow_llmtune.resources.trial_template import training_manifest, trial_template
from llmtune_trainer.flags import load, text_of
from llmtune_trainer.rules import Rule

KEPT = {"shares_checkpoints": True, "checkpoint_steps": 5, "checkpoint_uri": "/kept"}


def told(trainer_args: Any = None, parameters: Any = None, **changes: Any) -> list[str]:
    """Return the mistakes of a search, as the author reads them."""
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, model="/m", dataset="/d", trainer_args=trainer_args, **changes)
    space = SearchSpace.from_json(parameters or {"learning_rate": search.log_uniform(1e-5, 1e-3)}, problems)
    trial_template(spec, space, problems)
    return [str(error) for error in problems.errors]


@pytest.mark.parametrize(
    ("trainer_args", "rule", "fix"),
    [
        (
            {"eval_fraction": 0.1, "dataset_test_split": "test"},
            "`trainer_args.eval_fraction`='0.1' contradicts `trainer_args.dataset_test_split`",
            "give one of the two",
        ),
        (
            {"use_peft": False, "lora_r": 8},
            "`trainer_args.lora_r`='8' is about an adapter, and `trainer_args.use_peft` false trains none",
            "leave one of the two out",
        ),
        (
            {"merge_adapter": True},
            "`trainer_args.merge_adapter`='true' has no place for the model",
            "give `output_uri`, or leave it out",
        ),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau"},
            "`trainer_args.lr_scheduler_type`='reduce_lr_on_plateau' looks at evaluations",
            "give `trainer_args.eval_steps`",
        ),
        (
            {"lora_layers_to_transform": [0, 1]},
            "`trainer_args.lora_layers_to_transform`='0,1' needs the modules by name, and not all-linear",
            "give such as `trainer_args.lora_target_modules` q_proj,v_proj",
        ),
    ],
)
def test_a_contradiction_is_told_in_the_operators_words(trainer_args: Any, rule: str, fix: str) -> None:
    assert told(trainer_args) == [f"{rule}. Fix: {fix}"]


@pytest.mark.parametrize(
    ("trainer_args", "changes"),
    [
        ({"use_peft": False, "load_in_4bit": False, "use_dora": "no"}, {}),
        ({"merge_adapter": True}, {"output_uri": "/out"}),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}}, {}),
        ({"lora_layers_to_transform": "none"}, {}),
        ({"max_steps": 9}, KEPT),
        ({"fsdp": False, "evaluate_base_model": True, "sample_prompt": ""}, {}),
        ({"use_peft": False, "lora_r": 8}, {"image": "other/trainer"}),
    ],
)
def test_what_looks_like_a_contradiction_and_is_none(trainer_args: Any, changes: Any) -> None:
    assert told(trainer_args, **changes) == []


def test_what_the_operators_set_themselves_counts() -> None:
    (mistake,) = told(**KEPT)
    assert mistake == (
        "`checkpoint_uri`='/kept' keeps checkpoints for runs of other `trainer_args.max_steps`, and there is none. "
        "Fix: give `trainer_args.max_steps`, or leave it out"
    )
    assert told(parameters={"max_steps": search.integer(1, 9)}, **KEPT) == []


@pytest.mark.parametrize(
    ("trainer_args", "parameters", "mistake"),
    [
        (
            {"lora_r": 8},
            {"use_peft": search.categorical([True, False])},
            "`trainer_args.lora_r`='8' is about an adapter, and `parameters.use_peft` false",
        ),
        (
            {"use_peft": False},
            {"lora_dropout": search.double(0, 0.5)},
            "`parameters.lora_dropout`='0.0' is about an adapter, and `trainer_args.use_peft` false",
        ),
        (
            {"lr_scheduler_kwargs": {"min_lr": 1e-6}},
            {"lr_scheduler_type": search.categorical(["cosine", "cosine_with_min_lr", "warmup_stable_decay"])},
            "`parameters.lr_scheduler_type`='warmup_stable_decay' needs num_decay_steps",
        ),
        (
            {"dataloader_prefetch_factor": 2},
            {"dataloader_num_workers": search.integer(0, 4)},
            "`trainer_args.dataloader_prefetch_factor`='2' is about workers, and there are none",
        ),
    ],
)
def test_a_search_may_not_come_to_a_contradiction(trainer_args: Any, parameters: Any, mistake: str) -> None:
    assert [text[: len(mistake)] for text in told(trainer_args, parameters)] == [mistake]


def test_a_search_that_comes_to_none_is_no_mistake() -> None:
    kinds = search.categorical(["cosine", "linear", "cosine_with_min_lr"])
    assert told({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, {"lr_scheduler_type": kinds}) == []
    assert told({"dataloader_prefetch_factor": 2}, {"dataloader_num_workers": search.integer(1, 4)}) == []


def test_what_a_search_has_found_is_named_as_such() -> None:
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, model="/m", dataset="/d", trainer_args={"use_peft": False})
    training_manifest(spec, "n", "ns", {}, {}, {"lora_r": 8}, problems)
    assert [error.argument for error in problems.errors] == ["hyperparameters.lora_r"]


@pytest.mark.parametrize(
    ("trainer_args", "parameters", "changes", "wrong"),
    [
        ({"merge_adapter": True}, None, {"output_uri": 7}, "output_uri"),
        ({"merge_adapter": "perhaps"}, None, {}, "trainer_args.merge_adapter"),
        ({"use_peft": "perhaps", "lora_r": 8}, None, {}, "trainer_args.use_peft"),
        (None, {"max_steps": search.integer(9, 1)}, KEPT, "parameters.max_steps.min"),
        ({"max_steps": 9}, None, {**KEPT, "checkpoint_steps": "often"}, "checkpoint_steps"),
    ],
)
def test_of_what_is_wrong_by_itself_nothing_else_is_told(
    trainer_args: Any, parameters: Any, changes: Any, wrong: str
) -> None:
    assert {text.partition("=")[0] for text in told(trainer_args, parameters, **changes)} == {f"`{wrong}`"}


def test_what_else_is_wrong_is_told_with_it() -> None:
    mistakes = told({"use_peft": False, "lora_r": "many", "lora_dropout": 0.1})
    assert [text.partition("=")[0] for text in mistakes] == ["`trainer_args.lora_r`", "`trainer_args.lora_dropout`"]


# --- the trainer itself -------------------------------------------------------------------------------------------

RULES = load().rules
NAMES = sorted({name for rule in RULES for name in (*rule.flags, *rule.others)})
WORDS = {text_of(word) for rule in RULES for words in (*rule.beside.values(), *rule.without.values()) for word in words}
OBJECTS = {'{"min_lr": 1e-06}', '{"num_decay_steps": 9, "x": 1}', "{}"}


def texts_of(name: str) -> list[str]:
    """Good texts for a flag, those that rules are about among them."""
    kind = load().find(name, "sft").kind
    good = [kind.example]
    for text in sorted({"true", "false", "none", "0", "1", "q_proj,v_proj", *WORDS, *OBJECTS}):
        try:
            kind.cast(text)
        except ValueError:
            continue
        good.append(text)
    return good


@st.composite
def several(draw: st.DrawFn) -> dict[str, list[str]]:
    """Flags with one value or, as in a search, some; so that many of them break a rule."""
    rule = draw(st.sampled_from(RULES))
    names = {draw(st.sampled_from(rule.flags)), *rule.beside, *draw(st.sets(st.sampled_from(NAMES), max_size=4))}
    return {name: draw(st.lists(st.sampled_from(texts_of(name)), min_size=1, max_size=2)) for name in sorted(names)}


def by_the_trainer(choices: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Return which flag breaks which rule, in one of the runs at least."""
    found = set()
    for texts in product(*choices.values()):
        values = {name: load().find(name, "sft").kind.cast(text) for name, text in zip(choices, texts, strict=True)}
        found |= {(name, shown(rule)) for rule in RULES for name in rule.broken_by(values, default_of)}
    return found


def default_of(name: str) -> Any:
    return load().find(name, "sft").default


def shown(rule: Rule) -> str:
    return re.sub(r"\{(\w+)\}", r"`\1`", rule.why)


def by_the_operators(choices: dict[str, list[str]]) -> set[tuple[str, str]]:
    problems = Problems()
    run = Run(arguments={name: name for name in load().names})
    check_together({name: Given(name, tuple(texts)) for name, texts in choices.items()}, run, problems)
    return {(error.argument, error.rule) for error in problems.errors}


@given(several())
def test_operators_and_trainer_judge_flags_together_alike(choices: dict[str, list[str]]) -> None:
    assert by_the_operators(choices) == by_the_trainer(choices)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.flags[0]} {rule.why}")
def test_each_rule_can_be_broken_and_kept(rule: Rule) -> None:
    """And both sides see it, so that the random cases above are about something."""
    flag = rule.flags[0]
    chosen = [(name, words[0] if words else texts_of(name)[0]) for name, words in rule.beside.items()]
    example = "true" if load().find(flag, "sft").kind.type == "boolean" else texts_of(flag)[0]
    broken = {flag: [example], **{name: [text_of(word)] for name, word in chosen}}
    assert (flag, shown(rule)) in by_the_trainer(broken) & by_the_operators(broken)
    kept = {name: texts for name, texts in broken.items() if name != flag}
    assert (flag, shown(rule)) not in by_the_trainer(kept) | by_the_operators(kept)
