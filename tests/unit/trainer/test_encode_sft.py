from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmtune_trainer.data.encode_sft import SftEncoder
from llmtune_trainer.data.encoding import NOT_LEARNED, Encoded, Row
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import parse_settings

SPECIAL = ["<s>", "</s>", "<pad>", "<|turn|>", "<|end|>"]
CHAT = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
# As Llama's: the template writes the BOS token, and answers end with the EOS token.
WITH_BOS = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[{{ message['content'] }}] "
    "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
# As Qwen's: of earlier answers the thoughts are left out.
FORGETFUL = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{% if loop.last and message['role'] == 'assistant' %}"
    "(thought) {% endif %}{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
NO_END = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHAT
TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "second answer"},
]


def tokenizer_of(*, template: str | None = CHAT, adds_bos: bool = False, **special: Any) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["first answer second answer one? two? be brief question: answer"], trainer)
    if adds_bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    given = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **given)


def encoder_of(tokenizer: Any = None, **given: Any) -> SftEncoder:
    values = {"model_name_or_path": "m", "dataset_name": "d", **given}
    settings = parse_settings([f"--{name}={value}" for name, value in values.items()], {})
    return SftEncoder(tokenizer or tokenizer_of(), settings, ())


def told(encoder: SftEncoder, encoded: Encoded) -> list[tuple[str, str]]:
    """Return of each example its whole text, and what of it is learned, with a bar between parts."""
    return [(_text(encoder, example["input_ids"]), _learned(encoder, example)) for example in encoded.examples]


def _text(encoder: SftEncoder, tokens: list[int]) -> str:
    return str(encoder.tokenizer.decode(tokens))


def _learned(encoder: SftEncoder, example: Row) -> str:
    assert all(
        label in (NOT_LEARNED, token) for token, label in zip(example["input_ids"], example["labels"], strict=True)
    )
    parts: list[list[int]] = [[]]
    for label in example["labels"]:
        if label != NOT_LEARNED:
            parts[-1].append(label)
        elif parts[-1]:
            parts.append([])
    return "|".join(_text(encoder, part) for part in parts if part)


# --- what is learned ----------------------------------------------------------------------------------------


def test_a_text_is_learned_whole_with_its_end() -> None:
    encoder = encoder_of()
    assert told(encoder, encoder({"text": "one? two?"})) == [("one? two?</s>", "one? two?</s>")]


def test_a_completion_is_learned_with_its_end_and_a_prompt_is_not() -> None:
    encoder = encoder_of(tokenizer_of(template=None))
    row = {"prompt": "question:", "completion": " answer"}
    assert told(encoder, encoder(row)) == [("question: answer</s>", " answer</s>")]


def test_a_token_that_only_begins_in_the_prompt_is_learned() -> None:
    """Else of short answers nothing but the end is left, as the blank of ``question: `` becomes part of `` answer``."""
    encoder = encoder_of(tokenizer_of(template=None))
    assert told(encoder, encoder({"prompt": "question: ", "completion": "answer"}))[0][1] == " answer</s>"


def test_instructions_stand_apart_from_answers_without_a_chat_template() -> None:
    encoder = encoder_of(tokenizer_of(template=None))
    row = {"prompt": "one?", "completion": "answer", "gap": "\n\n"}
    assert told(encoder, encoder(row)) == [("one?\n\nanswer</s>", "answer</s>")]


def test_prompts_become_a_conversation_for_a_chat_model() -> None:
    encoder = encoder_of()
    found = told(encoder, encoder({"prompt": "one?", "completion": "answer", "gap": "\n\n"}))
    assert found == [("<|turn|>user\none?<|end|>\n<|turn|>assistant\nanswer<|end|>\n", "answer<|end|>\n")]


def test_every_answer_of_a_conversation_is_learned_in_one_example() -> None:
    encoder = encoder_of()
    whole = encoder.tokenizer.apply_chat_template(TURNS, tokenize=False)
    found = told(encoder, encoder({"messages": TURNS, "first": 1}))
    assert found == [(whole, "first answer<|end|>\n|second answer<|end|>\n")]


def test_only_answers_from_the_first_one_of_the_completion_on_are_learned() -> None:
    encoder = encoder_of()
    assert told(encoder, encoder({"messages": TURNS, "first": 4}))[0][1] == "second answer<|end|>\n"


def test_what_follows_the_last_answer_is_left_out() -> None:
    encoder = encoder_of()
    assert encoder({"messages": TURNS[:4], "first": 1}) == encoder({"messages": TURNS[:3], "first": 1})


def test_answers_that_a_template_rewrites_later_are_examples_of_their_own() -> None:
    encoder = encoder_of(tokenizer_of(template=FORGETFUL))
    (first, learned_first), (second, learned_second) = told(encoder, encoder({"messages": TURNS, "first": 1}))
    assert (learned_first, learned_second) == ("(thought) first answer<|end|>\n", "(thought) second answer<|end|>\n")
    assert first.count("<|turn|>") == 3
    assert second.endswith(
        "assistant\nfirst answer<|end|>\n<|turn|>user\ntwo?<|end|>\n<|turn|>assistant\n(thought) second answer<|end|>\n"
    )


def test_an_answer_that_no_template_ends_is_ended() -> None:
    encoder = encoder_of(tokenizer_of(template=NO_END))
    found = told(encoder, encoder({"messages": TURNS, "first": 1}))
    assert [learned for _, learned in found] == ["first answer\n</s>", " second answer\n</s>"]


def test_everything_is_learned_when_it_is_asked() -> None:
    plain = encoder_of(tokenizer_of(template=None), completion_only_loss="false")
    assert told(plain, plain({"prompt": "one?", "completion": " answer"})) == [("one? answer</s>",) * 2]
    for template in (CHAT, FORGETFUL, NO_END):
        encoder = encoder_of(tokenizer_of(template=template), completion_only_loss="false")
        ((whole, learned),) = told(encoder, encoder({"messages": TURNS, "first": 1}))
        assert whole == learned
    assert told(encoder, encoder({"input_ids": [70, 71, 72], "completion_mask": [0, 0, 1]}))[0][1] != ""


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [{"text": "one?"}, {"text": "<s>one?"}, {"prompt": "one?", "completion": "</s>"}])
def test_there_is_one_bos_token_and_one_eos_token(row: Row) -> None:
    encoder = encoder_of(tokenizer_of(template=None, adds_bos=True))
    assert told(encoder, encoder(row))[0][0] == "<s>one?</s>"


def test_a_template_that_writes_the_bos_token_gets_no_second() -> None:
    encoder = encoder_of(tokenizer_of(template=WITH_BOS, adds_bos=True))
    found = told(encoder, encoder({"messages": TURNS[1:], "first": 1}))
    assert found == [("<s>[one?] first answer</s>[two?] second answer</s>", "first answer</s>| second answer</s>")]


def test_without_an_eos_token_nothing_is_put_at_the_end() -> None:
    encoder = encoder_of(tokenizer_of(template=None, eos_token=None))
    assert told(encoder, encoder({"text": "one?"})) == [("one?", "one?")]


def test_a_tokenizer_without_a_padding_token_is_as_good() -> None:
    row = {"messages": TURNS, "first": 1}
    assert encoder_of(tokenizer_of(pad_token=None))(row) == encoder_of()(row)


def test_conversations_without_a_chat_template_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"no chat template\. Fix: take an instruction-tuned model"):
        encoder_of(tokenizer_of(template=None))({"messages": TURNS, "first": 1})


def test_a_conversation_that_the_template_refuses_is_malformed() -> None:
    encoder = encoder_of(tokenizer_of(template=STRICT))
    assert encoder({"messages": TURNS, "first": 1}).problem == "is refused by the chat template (no system here)"
    assert encoder({"messages": TURNS[1:], "first": 1}).problem is None


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=2, max_size=6),
    st.booleans(),
)
def test_a_tokenizer_without_offsets_learns_the_same(contents: list[str], chat: bool) -> None:
    tokenizer = tokenizer_of(template=CHAT if chat else None)
    texts = [content.replace("<", "(") for content in contents]
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    # A line's end between prompt and completion: tokens do not reach over it.
    row = {"messages": messages, "first": 1} if chat else {"prompt": "one?<|end|>", "completion": texts[0]}
    fast = encoder_of(tokenizer)
    slow = encoder_of(tokenizer)
    slow._labelled = slow._labelled_slowly  # type: ignore[method-assign]
    assert fast(row) == slow(row)


# --- tokens that were made elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "tokens", "labels"),
    [
        ({"input_ids": [70, 71, 72]}, [70, 71, 72], [70, 71, 72]),
        ({"input_ids": [70, 71, 72], "labels": [-100, -100, 72]}, [70, 71, 72], [-100, -100, 72]),
        ({"input_ids": [70, 71, 72], "completion_mask": [0, 1, 0]}, [70, 71], [-100, 71]),
        ({"input_ids": [70, 71, 2, 2, 2]}, [70, 71], [70, 71]),
        ({"input_ids": [70, 71, 2, 2], "labels": [70, 71, 2, 2]}, [70, 71], [70, 71]),
    ],
)
def test_tokens_are_taken_as_they_are_but_for_padding(row: Row, tokens: list[int], labels: list[int]) -> None:
    assert encoder_of()(row).examples == [{"input_ids": tokens, "labels": labels}]


def test_where_the_end_token_pads_one_of_them_is_learned() -> None:
    encoder = encoder_of(tokenizer_of(pad_token="</s>"))
    assert encoder({"input_ids": [70, 71, 1, 1, 1]}).examples == [{"input_ids": [70, 71, 1], "labels": [70, 71, 1]}]


def test_a_token_that_the_tokenizer_does_not_know_is_malformed() -> None:
    encoder = encoder_of()
    problem = encoder({"input_ids": [70, 9999]}).problem
    assert problem == f"has the token 9999, and the tokenizer knows {len(encoder.tokenizer)}"


# --- cutting ------------------------------------------------------------------------------------------------


def test_what_is_cut_off_is_counted_and_not_taught_to_end_there() -> None:
    encoder = encoder_of(tokenizer_of(template=None), max_length=6)
    whole = encoder_of(tokenizer_of(template=None))({"text": "one? two? one? two?"}).examples[0]["input_ids"]
    cut = encoder({"text": "one? two? one? two?"})
    assert cut == Encoded([{"input_ids": whole[:6], "labels": whole[:6]}], len(whole) - 6)


def test_a_row_whose_prompt_fills_the_length_teaches_nothing() -> None:
    encoder = encoder_of(tokenizer_of(template=None), max_length=4)
    found = encoder({"prompt": "one? two? one? two?", "completion": " answer"})
    assert found.examples == []
    assert found.cut_tokens > 0
    assert encoder({"input_ids": [70]}).examples == []


def test_of_a_cut_conversation_nothing_stands_behind_the_last_answer() -> None:
    whole = encoder_of()({"messages": TURNS, "first": 1}).examples[0]
    labels = whole["labels"]
    starts = [index for index in range(1, len(labels)) if labels[index] != NOT_LEARNED == labels[index - 1]]
    end_of_first = next(index for index in range(starts[0], len(labels)) if labels[index] == NOT_LEARNED)
    encoder = encoder_of(max_length=starts[1])
    found = encoder({"messages": TURNS, "first": 1})
    assert found.examples[0] == {name: values[:end_of_first] for name, values in whole.items()}
    assert found.cut_tokens == len(labels) - starts[1]


def test_random_conversations_are_learned_answer_by_answer() -> None:
    """One example with all answers learns the same tokens as one example for each answer."""
    encoder, random_ = encoder_of(), random.Random(0)
    for _ in range(20):
        turns = [
            {"role": role, "content": " ".join(random_.choices(["one?", "answer", "\n", "é"], k=3))}
            for _ in range(random_.randint(1, 4))
            for role in ("user", "assistant")
        ]
        (whole,) = encoder({"messages": turns, "first": 1}).examples
        each = [
            encoder({"messages": turns[: index + 1], "first": index}).examples[0] for index in range(1, len(turns), 2)
        ]
        assert [label for label in whole["labels"] if label != NOT_LEARNED] == [
            label for example in each for label in example["labels"] if label != NOT_LEARNED
        ]
