"""What is wrong with settings that are right one by one: the rules of the schema, and what its language cannot say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmtune_trainer.flags import load
from llmtune_trainer.sharding import mistakes_in

__all__ = ["contradictions"]

Values = Mapping[str, Any]


def contradictions(values: Values, wrong: Collection[str]) -> list[str]:
    """Judge what was given and is of the right type; what was not given is at its default.

    :param wrong: was given and cannot be read; whatever else it may be wrong with is not known yet.
    """
    found = [
        rule.told_of(name, _shown(values[name]))
        for rule in load().rules
        if rule.others.isdisjoint(wrong)
        for name in rule.broken_by(values, lambda name: load().find(name, values.get("task", "sft")).default)
    ]
    sharding = mistakes_in(values.get("fsdp_config") or {})
    return [*found, *_of_splits(values, wrong), *_of_weights(values, wrong), *sharding]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _of_splits(values: Values, wrong: Collection[str]) -> list[str]:
    test, train = values.get("dataset_test_split"), values.get("dataset_train_split", "train")
    if test is None or "dataset_train_split" in wrong or not _overlap(test, train):
        return []
    rule = "is the training split, or a part of it; a model is not judged by what it was trained on"
    return [f"`--dataset_test_split`={test!r} {rule}. Fix: name another split, or use --eval_fraction 0.1."]


def _overlap(test: str, train: str) -> bool:
    """Two parts of one split may lie beside each other; whether they do shows in the data."""
    same = test.partition("[")[0] == train.partition("[")[0]
    return same and (test == train or "[" not in test or "[" not in train)


def _of_weights(values: Values, wrong: Collection[str]) -> list[str]:
    weights, kinds = values.get("loss_weights"), values.get("loss_type")
    if weights is None or "loss_type" in wrong or len(weights) == (len(kinds) if isinstance(kinds, list) else 1):
        return []
    return [f"`--loss_weights`={weights!r} has not one weight for each of --loss_type. Fix: give as many."]
