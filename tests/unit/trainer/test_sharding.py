"""``--fsdp_config`` is read key by key, as the libraries pass over what they do not know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmtune_trainer.settings import SettingsError, parse_settings


def parse(config: dict[str, Any]) -> Any:
    given = ["--model_name_or_path", "/m", "--dataset_name", "/d", "--fsdp", "true"]
    return parse_settings([*given, "--fsdp_config", json.dumps(config)], {})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"reshard_after_foward": False},
            ["reshard_after_foward=False is nothing that FSDP2 knows", "reshard_after_forward?"],
        ),
        ({"xla": True}, ["give some of activation_checkpointing, auto_wrap_policy,"]),
        (
            {"state_dict_type": "SHARDED_STATE_DICT"},
            ["state_dict_type='SHARDED_STATE_DICT'", "one of FULL_STATE_DICT", "Fix:"],
        ),
        ({"version": 1}, ["version=1 must be one of 2"]),
        ({"cpu_offload": "false"}, ["cpu_offload='false' must be true or false", "without quotes"]),
        ({"min_num_params": "1000"}, ["min_num_params='1000' must be a whole number", "without quotes"]),
        ({"cpu_offload": 0.5}, ["cpu_offload=0.5 must be true or false"]),
        ({"auto_wrap_policy": None}, ["auto_wrap_policy=None must be one of TRANSFORMER_BASED_WRAP"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_would_be_passed_over_or_lose_the_weights_is_refused(config: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(config)
    (mistake,) = refused.value.mistakes
    assert mistake.startswith("`--fsdp_config`: ")
    assert all(word in mistake for word in words), mistake


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        parse({"version": 1, "shard": True, "reshard_after_forward": True})
    assert len(refused.value.mistakes) == 2


def test_what_fsdp2_knows_is_taken_as_it_is() -> None:
    config = {
        "version": 2,
        "reshard_after_forward": False,
        "cpu_offload": True,
        "state_dict_type": "FULL_STATE_DICT",
        "auto_wrap_policy": "SIZE_BASED_WRAP",
        "min_num_params": 1000,
        "fsdp_transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
    }
    assert parse(config).hyperparameters["fsdp_config"] == config
