"""Builds a tiny random BERT and a few sentences to classify, in a second and with no download.

    python tests/support/tiny_encoder.py MODEL_DIR [DATA_DIR]

MODEL_DIR becomes an ordinary Hugging Face folder of a pretrained encoder (2 layers, 64 wide, WordPiece, no head for
classes yet); DATA_DIR gets train.jsonl (56 rows) and eval.jsonl (14 other rows) of `text` and `label`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_files import Rows, build, quietly, split, write_data

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
THINGS = ("tea", "soup", "film", "song", "book", "room", "road", "game", "trip", "talk")
# Of the three classes one is rare.
WORDS = {
    "negative": ("awful", "poor", "dull"),
    "neutral": ("plain",),
    "positive": ("good", "lovely", "fine"),
}


def rows() -> Rows:
    """Return seventy sentences, short and long ones, whose class a single word tells."""
    return [
        {"text": f"the {thing} was {word}" + " , we think" * (number % 4), "label": label}
        for number, thing in enumerate(THINGS)
        for label, words in WORDS.items()
        for word in words
    ]


def split_rows() -> tuple[Rows, Rows]:
    return split(rows())


def build_data(folder: Path) -> Path:
    return write_data(folder, rows())


@quietly()
def build_model(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
    )
    # As it comes from pretraining: without a pooler, too.
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=256, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    tokenizer.train_from_iterator((row["text"] for row in rows()), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


if __name__ == "__main__":
    build(build_model, build_data)
