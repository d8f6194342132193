"""Builds a tiny random Llama and a little text to tune it on, in a second and with no download.

    python tests/support/tiny_model.py MODEL_DIR [DATA_DIR]

MODEL_DIR becomes an ordinary Hugging Face folder (2 layers, 64 wide, a tokenizer with a chat template); DATA_DIR gets
train.jsonl (48 rows) and eval.jsonl (12 other rows) of `prompt` and `completion`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_files import Rows, build, quietly, split, write_data

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ANIMALS = ("cat", "dog", "owl", "fox", "bee", "cow", "hen", "pig", "rat", "bat")
VERBS = ("eat", "like", "fear", "hear", "see", "want")
FOOD = ("milk", "bones", "mice", "eggs", "honey", "grass")


def rows() -> Rows:
    """Return sixty questions and answers with a pattern that a tiny model can learn."""
    return [
        {"prompt": f"What does the {animal} {verb}?", "completion": f"The {animal} does {verb} {FOOD[index]}."}
        for animal in ANIMALS
        for index, verb in enumerate(VERBS)
    ]


def split_rows() -> tuple[Rows, Rows]:
    return split(rows())


def build_data(folder: Path) -> Path:
    return write_data(folder, rows())


@quietly()
def build_model(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{row['prompt']} {row['completion']}" for row in rows()), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
    )


if __name__ == "__main__":
    build(build_model, build_data)
