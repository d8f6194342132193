"""Rows that lie end to end in a batch are to a model what each is alone, or the model gets padded batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
}
GPT_SIZES = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ROWS = ((5, 9, 6, 7, 8), (4, 4, 9), tuple(range(10, 22)), (3, 7))
LONGEST = max(map(len, ROWS))


def model_of(config_class: str, **config: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config_class)(**config)
    return transformers.AutoModelForCausalLM.from_config(made).eval().float()


@pytest.mark.parametrize(
    ("config_class", "config", "attention"),
    [
        ("LlamaConfig", SIZES, "llmtune_row_by_row"),
        ("Qwen3Config", SIZES, "llmtune_row_by_row"),
        ("MixtralConfig", SIZES | {"num_local_experts": 2}, "llmtune_row_by_row"),
        ("GPT2Config", GPT_SIZES, "llmtune_row_by_row"),
        ("MistralConfig", SIZES | {"sliding_window": LONGEST}, "llmtune_row_by_row"),
        ("MistralConfig", SIZES | {"sliding_window": 4}, "sdpa"),
        ("Gemma3TextConfig", SIZES | {"sliding_window": 4, "query_pre_attn_scalar": 8}, "sdpa"),
    ],
)
def test_each_row_of_a_flat_batch_has_the_logits_that_it_has_alone(
    config_class: str, config: dict[str, Any], attention: str
) -> None:
    import torch

    from llmtune_trainer.attention import takes_flat_batches
    from llmtune_trainer.tasks.sft import _flat_collator, _logits

    model = model_of(config_class, **config)
    assert takes_flat_batches(model)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits[0, :-1] for row in ROWS])
        collate = _flat_collator(model, SimpleNamespace(pad_token_id=0), SimpleNamespace(max_length=LONGEST))  # type: ignore[arg-type]
        logits, targets, rows = _logits(model, collate([{"input_ids": row, "labels": row} for row in ROWS]))
    assert model.config._attn_implementation == attention
    assert torch.allclose(logits, alone, atol=1e-5)
    assert targets.tolist() == [token for row in ROWS for token in row[1:]]
    assert rows.tolist() == [number for number, row in enumerate(ROWS) for _ in row[1:]]


@pytest.mark.parametrize(
    ("config_class", "config"),
    [
        ("BloomConfig", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("MambaConfig", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}),
        ("Lfm2Config", SIZES | {"layer_types": ["conv", "full_attention"]}),
        ("Gemma2Config", SIZES | {"query_pre_attn_scalar": 8}),
        ("GptOssConfig", SIZES | {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ],
)
def test_a_model_that_would_mix_the_rows_gets_padded_batches(config_class: str, config: dict[str, Any]) -> None:
    from llmtune_trainer.attention import takes_flat_batches

    assert not takes_flat_batches(model_of(config_class, **config))


def test_short_rows_are_attended_in_float32_on_a_cpu_and_long_ones_as_they_are() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attend

    from llmtune_trainer.attention import SHORT_ROW, attend_row_by_row

    torch.manual_seed(0)
    lengths = [5, SHORT_ROW, SHORT_ROW + 1]
    parts = [torch.randn(1, 4, sum(lengths), 8).bfloat16() for _ in range(3)]
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together, _ = attend_row_by_row(layer, *parts, None, row_lengths=lengths)  # type: ignore[arg-type]
    *short, long = zip(*(part.split(lengths, dim=2) for part in parts), strict=True)
    exact = [attend(*(part.float() for part in row), is_causal=True).bfloat16() for row in short]
    alone = torch.cat([*exact, attend(*long, is_causal=True)], dim=2)
    assert torch.equal(together, alone.transpose(1, 2))


@pytest.mark.parametrize("flags", [{}, {"use_dora": True}, {"load_in_4bit": True}], ids=str)
def test_what_is_spared_of_copies_changes_no_loss(
    train: Any, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]
) -> None:
    settings = {"dtype": "bfloat16", "max_steps": 3, "logging_steps": 1, "learning_rate": "5e-3", **flags}
    spared = train(**settings)
    monkeypatch.setattr("llmtune_trainer.tasks._spare_copies", lambda _: None)
    assert spared.results == train(**settings).results
    assert spared.metrics["train_loss"][2] < spared.metrics["train_loss"][0]
