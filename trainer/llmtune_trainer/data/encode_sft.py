"""Rows of supervised fine-tuning: the tokens, and which of them are learned.

Only answers are learned, unless --completion_only_loss false; the token that ends an answer is, and padding never is.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from llmtune_trainer.data.encoding import NOT_LEARNED, Encoded, Row
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings

Span = tuple[int, int]


class SftEncoder:
    def __init__(self, tokenizer: Any, settings: Settings, labels: tuple[str, ...]) -> None:  # noqa: ARG002
        self.tokenizer = tokenizer
        self.max_length = settings.max_length
        self.learns_all = settings.hyperparameters.get("completion_only_loss") is False
        self.opening = _opening(tokenizer)
        self.ends = tuple(filter(None, {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}))

    def __call__(self, row: Row) -> Encoded:
        if "input_ids" in row:
            return self._pretokenised(row)
        if "text" in row:
            return self._written(row["text"], (0, len(row["text"])))
        if "messages" in row or self.tokenizer.chat_template:
            return self._spoken(row)
        prompt = row["prompt"] + row.get("gap", "")
        whole = prompt + row["completion"]
        return self._written(whole, (len(prompt), len(whole)))

    # --- plain text -----------------------------------------------------------------------------------------

    def _written(self, text: str, learned: Span) -> Encoded:
        tokens, labels = self._labelled(text, [learned])
        if tokens[: len(self.opening)] != self.opening:
            tokens, labels = self.opening + tokens, self._unlearned(self.opening) + labels
        return self._cut(*self._ended(tokens, labels))

    def _unlearned(self, tokens: list[int]) -> list[int]:
        return tokens if self.learns_all else [NOT_LEARNED] * len(tokens)

    def _ended(self, tokens: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        end = self.tokenizer.eos_token_id
        return (tokens, labels) if end is None or tokens[-1:] == [end] else ([*tokens, end], [*labels, end])

    def _labelled(self, text: str, learned: list[Span]) -> tuple[list[int], list[int]]:
        """Return tokens and labels; a token that only begins before what is learned is learned with it."""
        if not self.tokenizer.is_fast:
            return self._labelled_slowly(text, learned)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, ends = found["input_ids"], [end for _, end in found["offset_mapping"]]
        return tokens, self._labels(
            tokens, [(bisect_right(ends, start), bisect_right(ends, stop)) for start, stop in learned]
        )

    def _labelled_slowly(self, text: str, learned: list[Span]) -> tuple[list[int], list[int]]:
        def tokens_of(part: str) -> list[int]:
            return list(self.tokenizer(part, add_special_tokens=False)["input_ids"])

        spans = [(len(tokens_of(text[:start])), len(tokens_of(text[:stop]))) for start, stop in learned]
        return (tokens := tokens_of(text)), self._labels(tokens, spans)

    def _labels(self, tokens: list[int], learned: list[Span]) -> list[int]:
        if self.learns_all:
            return list(tokens)
        labels = [NOT_LEARNED] * len(tokens)
        for start, stop in learned:
            labels[start:stop] = tokens[start:stop]
        return labels

    # --- conversations --------------------------------------------------------------------------------------

    def _spoken(self, row: Row) -> Encoded:
        if not self.tokenizer.chat_template:
            raise BadInputError(
                "The rows are `messages`, and the model's tokenizer has no chat template. "
                "Fix: take an instruction-tuned model, or rows of prompt and completion."
            )
        messages, first = _messages(row)
        answers = [index for index in range(first, len(messages)) if messages[index]["role"] == "assistant"]
        try:
            turns = [self._turn(messages, index, row.get("tools")) for index in answers]
        except Exception as error:  # noqa: BLE001  a template is a program of the model's author: it raises what it likes
            reason = " ".join(str(error).split())[:160]
            return Encoded([], problem=f"is refused by the chat template ({reason})")
        whole = turns[-1][0]
        if self.learns_all:
            return self._answer(*turns[-1])
        if all(whole.startswith(text) and self._is_ended(text) for text, _ in turns):
            return self._cut(*self._labelled(whole, [span for _, span in turns]))
        # The template writes a turn in another way once more turns follow: each answer stands for itself.
        every = [self._answer(*turn) for turn in turns]
        return Encoded([example for one in every for example in one.examples], sum(one.cut_tokens for one in every))

    def _turn(self, messages: list[Row], index: int, tools: Any) -> tuple[str, Span]:
        """Return the conversation up to an answer, and where in it the answer stands."""

        def render(count: int, *, opens: bool) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    messages[:count], tools=tools, tokenize=False, add_generation_prompt=opens
                )
            )

        text = render(index + 1, opens=False)
        return text, (_shared(render(index, opens=True), text), len(text))

    def _answer(self, text: str, span: Span) -> Encoded:
        tokens, labels = self._labelled(text, [span])
        return self._cut(*((tokens, labels) if self._is_ended(text) else self._ended(tokens, labels)))

    def _is_ended(self, text: str) -> bool:
        """Return whether the template has a token that ends a turn."""
        return self.tokenizer.eos_token_id is None or text.rstrip().endswith(self.ends)

    # --- tokens ---------------------------------------------------------------------------------------------

    def _pretokenised(self, row: Row) -> Encoded:
        tokens: list[int] = row["input_ids"]
        if max(tokens, default=0) >= len(self.tokenizer):
            return Encoded([], problem=f"has the token {max(tokens)}, and the tokenizer knows {len(self.tokenizer)}")
        labels: list[int] = row.get("labels", tokens)
        if "completion_mask" in row and not self.learns_all:
            labels = [token if bit else NOT_LEARNED for token, bit in zip(tokens, row["completion_mask"], strict=True)]
        count = self._without_padding(tokens)
        return self._cut(tokens[:count], labels[:count])

    def _without_padding(self, tokens: list[int]) -> int:
        """Return how many tokens stand in front of padding; where the end token is used for it, one of them ends."""
        pad, count = self.tokenizer.pad_token_id, len(tokens)
        while count and tokens[count - 1] == pad:
            count -= 1
        return count + (pad == self.tokenizer.eos_token_id and count < len(tokens))

    def _cut(self, tokens: list[int], labels: list[int]) -> Encoded:
        """Cut off the end: what is left of an answer is right as far as it goes, and is not taught to end there."""
        cut = max(0, len(tokens) - self.max_length)
        labels = labels[: self.max_length]
        # The first token is predicted by nothing, and nothing is learned behind the last label.
        learned = [index for index, label in enumerate(labels) if label != NOT_LEARNED and index > 0]
        if not learned:
            return Encoded([], cut)
        count = learned[-1] + 1
        return Encoded([{"input_ids": tokens[:count], "labels": labels[:count]}], cut)


def _messages(row: Row) -> tuple[list[Row], int]:
    """Return a conversation and from where on its answers are learned."""
    if "messages" in row:
        return row["messages"], row["first"]
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}], 1


def _shared(one: str, other: str) -> int:
    """Return how long the common beginning is."""
    if other.startswith(one):
        return len(one)
    differing = (index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differing, len(other))


def _opening(tokenizer: Any) -> list[int]:
    """Return what the tokenizer puts in front of a text, such as its BOS token."""
    bare, dressed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    starts = (start for start in range(len(dressed)) if dressed[start : start + len(bare)] == bare)
    return list(dressed[: next(starts, 0)])
