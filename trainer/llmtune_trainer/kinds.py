"""The kinds of values that our own settings take."""

from __future__ import annotations

from llmtune_trainer.flags import Kind

_BYTES = {
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
}


def a_text(example: str) -> Kind:
    return Kind(example=example)


def an_integer(minimum: int, example: str) -> Kind:
    return Kind("integer", minimum=minimum, example=example)


def a_choice(*words: str) -> Kind:
    return Kind("choice", choices=words, example=words[0])


POSITIVE = Kind("number", above=0, example="2e-4")
NOT_NEGATIVE = Kind("number", minimum=0, example="0.01")
SHARE = Kind("number", above=0, maximum=1, example="0.25")
PART = Kind("number", above=0, below=1, example="0.1")
RATIO = Kind("number", minimum=0, below=1, example="0.05")
YES_NO = Kind("boolean", example="true")
SPLIT = Kind(
    "pattern",
    also=r"[^\[\]\s]+(\[(-?\d+%?)?:(-?\d+%?)?\])?",
    also_told="the name of a split, or a part of it such as train[:1000] or train[10%:20%]",
    example="train",
)
# Zero is none, so that whatever the pattern takes is above it.
_NOT_ZERO = r"([1-9]\d{0,11}(\.\d{1,9})?|0\.0{0,9}[1-9]\d{0,9})"
ALPHA = Kind(
    "number",
    above=0,
    also=rf"{_NOT_ZERO}?r",
    also_told="a multiple of lora_r such as r, 2r or 0.5r",
    example="2r",
)
SIZE = Kind(
    "integer", minimum=1, also=rf"{_NOT_ZERO}({'|'.join(_BYTES)})", also_told="a size such as 50GiB", example="50GiB"
)
MODULES = Kind("list", "text", also="all-linear", also_told="all-linear", example="q_proj,v_proj")
ABOVE_ONE = Kind("number", above=1, none=True, example="3.0")


def alpha_of(text: str, rank: int) -> float:
    """Of a text that the pattern of ALPHA takes."""
    return float(text[:-1] or 1) * rank


def bytes_of(text: str) -> int:
    """Of a text that the pattern of SIZE takes."""
    number = text.rstrip("KMGTiB")
    return int(float(number) * _BYTES[text[len(number) :]])
