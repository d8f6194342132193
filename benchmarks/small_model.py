"""A small language model, really pretrained, and dialogues to tune it on; a minute on a core, no download."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from demo.prepare_dataset import Pair, find_corpus, read_dialogues, unique_pairs

CHANGED_SHARE = 0.1
TRAIN_ROWS, EVAL_ROWS = 240, 60
VOCABULARY = 1024
STEPS, BATCH, LENGTH = 600, 32, 64
_SPECIAL_TOKENS = ("<|pad|>", "<|end|>")


def dialogues() -> tuple[list[Pair], list[Pair]]:
    """Return what to pretrain on, and what is left for tuning; always the same."""
    pairs = unique_pairs(read_dialogues(find_corpus()))
    random.Random(0).shuffle(pairs)  # noqa: S311 (picks rows, guards nothing)
    spare = round((TRAIN_ROWS + EVAL_ROWS) * (1 + CHANGED_SHARE))
    return pairs[spare:], pairs[:spare]


def write_datasets(pairs: Sequence[Pair], folder: Path, seed: int) -> tuple[Path, Path]:
    """Write last week's rows and this week's: of both splits, a tenth was replaced by rows not seen before."""
    drawn = random.Random(seed).sample(pairs, len(pairs))  # noqa: S311
    rows, fresh = iter(drawn[: TRAIN_ROWS + EVAL_ROWS]), iter(drawn[TRAIN_ROWS + EVAL_ROWS :])
    before = {"train": _take(rows, TRAIN_ROWS), "eval": _take(rows, EVAL_ROWS)}
    after = {name: _replace_some(split, fresh) for name, split in before.items()}
    return _write(folder / "before", before), _write(folder / "after", after)


def _take(rows: Iterator[Pair], count: int) -> list[Pair]:
    return [next(rows) for _ in range(count)]


def _replace_some(split: Sequence[Pair], fresh: Iterator[Pair]) -> list[Pair]:
    changed = round(len(split) * CHANGED_SHARE)
    return [*_take(fresh, changed), *split[changed:]]


def _write(folder: Path, splits: dict[str, list[Pair]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in splits.items():
        lines = (json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def pretrain(pairs: Sequence[Pair], folder: Path) -> float:
    """Write an ordinary Hugging Face folder (4 layers, 128 wide); return the last training loss in nats a token.

    It reads Python's own help texts, and the dialogues that are not for tuning.
    """
    # Half a gigabyte, which only the process that pretrains needs.
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(2)
    texts = [*topics.values(), *(" ".join(pair) for pair in pairs)]
    tokenizer = _tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.tensor([token for ids in tokenizer(texts)["input_ids"] for token in (*ids, tokenizer.eos_token_id)])
    draw = torch.Generator().manual_seed(0)
    loss = torch.tensor(float("nan"))
    for _ in range(STEPS):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=draw)
        batch = torch.stack([tokens[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return float(loss.detach())


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_SPECIAL_TOKENS[0], eos_token=_SPECIAL_TOKENS[1], model_max_length=256
    )
