"""Makes train.jsonl and eval.jsonl (`prompt`, `completion`) of the English dialogues in `chatterbot-corpus`.

    python -m demo.prepare_dataset OUT_DIR

The corpus repeats itself (one file has 1,050 rows and 10 different ones): a question is kept once, so that no
question of the evaluation set occurs in the training set. The `coding` file is left out: its answers are long
programs, and a step on them takes three times as long.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = "chatterbot_corpus"
INSTALL = "pip install --no-deps chatterbot-corpus==1.3.3 && pip install pyyaml"
LEFT_OUT = frozenset({"coding"})
EVAL_ROWS = 96
LONGEST_TEXT = 300

Pair = tuple[str, str]


class PreparationError(Exception):
    """What is missing, and the command that brings it."""


def find_corpus() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PreparationError(f"The package that carries the demo's text is not installed. Run: {INSTALL}")
    if importlib.util.find_spec("yaml") is None:
        raise PreparationError(f"Reading the corpus needs PyYAML. Run: {INSTALL}")
    folder = Path(spec.submodule_search_locations[0]) / "data" / "english"
    if not folder.is_dir():
        raise PreparationError(f"{PACKAGE} holds no English corpus; it is another version. Run: {INSTALL}")
    return folder


def read_dialogues(folder: Path) -> Iterator[list[Any]]:
    import yaml  # here, so that a missing PyYAML is reported by find_corpus()

    for file in sorted(folder.glob("*.yml")):
        if file.stem not in LEFT_OUT:
            yield from yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]


def unique_pairs(dialogues: Iterable[list[Any]]) -> list[Pair]:
    """Return the first question and answer of each dialogue, each question once."""
    pairs: dict[str, Pair] = {}
    for dialogue in dialogues:
        texts = [" ".join(str(text).split()) for text in dialogue[:2]]
        if len(texts) == 2 and all(texts) and max(map(len, texts)) <= LONGEST_TEXT:
            pairs.setdefault(texts[0].casefold(), (texts[0], texts[1]))
    return list(pairs.values())


def split(pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Order by a hash of the question: the same rows on each machine, whatever the order of the files."""
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].casefold().encode()).hexdigest())
    return ordered[EVAL_ROWS:], ordered[:EVAL_ROWS]


def write_jsonl(file: Path, pairs: Iterable[Pair]) -> None:
    unfinished = file.with_suffix(".unfinished")
    lines = (json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False) for prompt, answer in pairs)
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the demo's training and evaluation text.")
    parser.add_argument("target", type=Path, metavar="OUT_DIR", help="the folder for train.jsonl and eval.jsonl")
    target = parser.parse_args().target.resolve()
    try:
        train, held_out = split(unique_pairs(read_dialogues(find_corpus())))
    except PreparationError as error:
        print(f"prepare_dataset: {error}", file=sys.stderr)
        return 1
    target.mkdir(parents=True, exist_ok=True)
    write_jsonl(target / "train.jsonl", train)
    write_jsonl(target / "eval.jsonl", held_out)
    print(f"{len(train)} training rows and {len(held_out)} evaluation rows in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
