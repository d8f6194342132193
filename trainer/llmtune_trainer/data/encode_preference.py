"""Rows of preference tuning: a prompt, an answer that was chosen and one that was rejected."""

from __future__ import annotations

from typing import Any

from trl.data_utils import common_prefix_length, extract_prompt

from llmtune_trainer.data.encoding import Encoded, Row
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings

Text = str | list[Row]


class PreferenceEncoder:
    """Makes the columns of TRL's DPOTrainer; a pair whose answers do not differ any more teaches nothing and goes."""

    def __init__(self, tokenizer: Any, settings: Settings, labels: tuple[str, ...]) -> None:  # noqa: ARG002
        self.tokenizer = tokenizer
        self.end = tokenizer.eos_token or ""
        self.max_length = settings.max_length

    def __call__(self, row: Row) -> Encoded:
        parts = self._parts(row)
        if not parts["prompt"]:
            return Encoded([], problem="has no prompt that `chosen` and `rejected` begin with")
        try:
            prompt = self._tokens(parts["prompt"], opens=True)
            chosen, rejected = (self._tokens(parts["prompt"] + parts[name]) for name in ("chosen", "rejected"))
        except Exception as error:  # noqa: BLE001  a template is a program of the model's author: it raises what it likes
            reason = " ".join(str(error).split())[:160]
            return Encoded([], problem=f"is refused by the chat template ({reason})")
        # Some templates write a prompt in another way once an answer follows: the answers start where they differ.
        start = min(common_prefix_length(prompt, chosen), common_prefix_length(prompt, rejected))
        cut = sum(max(0, len(tokens) - self.max_length) for tokens in (chosen, rejected))
        chosen, rejected = (tokens[start : self.max_length] for tokens in (chosen, rejected))
        if start >= self.max_length or chosen == rejected:
            return Encoded([], cut)
        return Encoded([{"prompt_ids": prompt[:start], "chosen_ids": chosen, "rejected_ids": rejected}], cut)

    def _parts(self, row: Row) -> Row:
        """Return prompt and answers: as texts for a model that knows no conversations, else as conversations."""
        if not self.tokenizer.chat_template:
            if all(isinstance(part, str) for part in row.values()):
                return row
            raise BadInputError(
                "The rows are conversations, and the model's tokenizer has no chat template. "
                "Fix: take an instruction-tuned model, or rows of prompt, chosen and rejected texts."
            )
        answers = {name: row[name] for name in ("chosen", "rejected")}
        if "prompt" not in row or any(map(_is_whole, answers.values())):
            return dict(extract_prompt(answers))
        return {name: _turn("user" if name == "prompt" else "assistant", part) for name, part in row.items()}

    def _tokens(self, text: Text, *, opens: bool = False) -> list[int]:
        if not isinstance(text, str):
            return list(self.tokenizer.apply_chat_template(text, add_generation_prompt=opens, return_dict=False))
        ends = opens or text.endswith(self.end)
        return list(self.tokenizer(text if ends else text + self.end)["input_ids"])


def _is_whole(answer: Text) -> bool:
    """Whether it is a whole conversation, as often on the Hub: the prompt is the beginning that both have."""
    return not isinstance(answer, str) and answer[0]["role"] != "assistant"


def _turn(role: str, part: Text) -> list[Row]:
    return [{"role": role, "content": part}] if isinstance(part, str) else part
