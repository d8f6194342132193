from __future__ import annotations

from typing import Any

import pytest

from llmtune_trainer.data.formats import FORMATS, Format, MalformedError, format_of
from llmtune_trainer.errors import BadInputError

Row = dict[str, Any]
QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
TURNS = [QUESTION, ANSWER]


def named(name: str, task: str = "sft") -> Format:
    return next(known for known in FORMATS[task] if known.name == name)


# --- which format -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "fields", "name"),
    [
        ("sft", "text", "text"),
        ("sft", "prompt completion text", "prompt+completion"),
        ("sft", "instruction input output text", "instruction+output"),
        ("sft", "prompt messages chosen rejected", "messages"),
        ("sft", "id conversations", "conversations"),
        ("sft", "input_ids attention_mask text", "input_ids"),
        ("classification", "text label idx", "text+label"),
        ("classification", "sentence1 sentence2 label", "sentence1+sentence2+label"),
        ("classification", "text text_pair labels", "text+text_pair+labels"),
        ("dpo", "prompt chosen rejected messages", "prompt+chosen+rejected"),
        ("dpo", "chosen rejected", "chosen+rejected"),
    ],
)
def test_the_fields_tell_the_format(task: str, fields: str, name: str) -> None:
    assert format_of([dict.fromkeys(fields.split())], task, "data").name == name


def test_the_first_row_of_a_known_format_tells_it() -> None:
    assert format_of([{}, {"prompt": "a"}, {"text": "b"}, {"messages": []}], "sft", "data").name == "text"


def test_unknown_fields_name_the_known_formats() -> None:
    with pytest.raises(
        BadInputError,
        match=r"rows of data have the fields question, answer, .* --task sft\. Fix: .*: input_ids, .*, text\.$",
    ):
        format_of([{"question": "a", "answer": "b"}], "sft", "data")


# --- what encoders get --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "read"),
    [
        ("text", {"text": " a ", "id": 7}, {"text": " a "}),
        ("prompt+completion", {"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "a"}),
        ("prompt+completion", {"prompt": "[1]", "completion": "[2]"}, {"prompt": "[1]", "completion": "[2]"}),
        ("prompt+completion", {"prompt": TURNS[:1], "completion": TURNS[1:]}, {"messages": TURNS, "first": 1}),
        (
            "prompt+completion",
            {"prompt": [*TURNS, QUESTION], "completion": [ANSWER]},
            {"messages": TURNS * 2, "first": 3},
        ),
        (
            "instruction+output",
            {"instruction": "i", "input": "", "output": "o"},
            {"prompt": "i", "completion": "o", "gap": "\n\n"},
        ),
        (
            "instruction+output",
            {"instruction": "i", "input": "x", "output": "o"},
            {"prompt": "i\n\nx", "completion": "o", "gap": "\n\n"},
        ),
        ("instruction+output", {"instruction": "i", "output": "o"}, {"prompt": "i", "completion": "o", "gap": "\n\n"}),
        ("messages", {"messages": TURNS}, {"messages": TURNS, "first": 1}),
        (
            "messages",
            {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
            {"messages": TURNS, "first": 1},
        ),
        ("messages", {"messages": [QUESTION | {"name": None}, ANSWER]}, {"messages": TURNS, "first": 1}),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]},
            {"messages": TURNS, "first": 1},
        ),
        (
            "messages",
            {"messages": TURNS, "tools": [{"name": "t"}]},
            {"messages": TURNS, "first": 1, "tools": [{"name": "t"}]},
        ),
        (
            "conversations",
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            {"messages": TURNS, "first": 1},
        ),
        ("conversations", {"conversations": TURNS}, {"messages": TURNS, "first": 1}),
        ("input_ids", {"input_ids": [1, 2]}, {"input_ids": [1, 2]}),
        ("input_ids", {"input_ids": "[1, 2]"}, {"input_ids": [1, 2]}),
        ("input_ids", {"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1, 2], "labels": [-100, 2]}),
        (
            "input_ids",
            {"input_ids": [1, 2], "completion_mask": [0, 1]},
            {"input_ids": [1, 2], "completion_mask": [0, 1]},
        ),
        (
            "input_ids",
            {"input_ids": [0, 1, 2], "attention_mask": [0, 1, 1], "labels": [0, 1, 2]},
            {"input_ids": [1, 2], "labels": [1, 2]},
        ),
    ],
)
def test_rows_of_sft_come_in_one_of_four_shapes(name: str, row: Row, read: Row) -> None:
    assert named(name).read(row) == read


@pytest.mark.parametrize("text", ["[2, 3, 5]", '[{"id": 1}]', "[]", "[not JSON"])
def test_a_text_may_look_like_a_list(text: str) -> None:
    pair = {"prompt": text, "completion": text}
    assert format_of([pair], "sft", "data").read(pair) == pair
    preference = {"prompt": "Primes?", "chosen": text, "rejected": "none"}
    assert format_of([preference], "dpo", "data").read(preference) == preference


def test_a_call_of_a_tool_needs_no_text() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    found = named("messages").read({"messages": [QUESTION, call]})["messages"][1]
    assert found == {"role": "assistant", "tool_calls": call["tool_calls"]}


@pytest.mark.parametrize(
    ("value", "label"),
    [("good", "good"), (3, "3"), (True, "true"), (2.0, "2"), (["b", 1], ["b", "1"]), ([], [])],
)
def test_a_class_is_a_text_or_a_list_of_texts(value: Any, label: Any) -> None:
    assert named("sentence+label", "classification").read({"sentence": "s", "label": value}) == {
        "text": "s",
        "label": label,
    }


def test_a_pair_of_texts_is_classified() -> None:
    row = {"premise": "p", "hypothesis": "h", "label": 0}
    assert named("premise+hypothesis+label", "classification").read(row) == {
        "text": "p",
        "text_pair": "h",
        "label": "0",
    }


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [ANSWER | {"content": "b"}]},
    ],
)
def test_preferences_are_handed_on_as_they_are(row: Row) -> None:
    assert named("prompt+chosen+rejected", "dpo").read(row) == row


def test_the_prompt_of_preferences_may_be_part_of_the_conversations() -> None:
    row = {"chosen": TURNS, "rejected": [QUESTION, ANSWER | {"content": "b"}]}
    assert named("chosen+rejected", "dpo").read(row) == row


# --- malformed rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("text", {"prompt": "a"}, "has no `text`"),
        ("text", {"text": " \n"}, "has an empty `text`"),
        ("prompt+completion", {"prompt": "a", "completion": ""}, "has an empty `completion`"),
        ("prompt+completion", {"prompt": "a", "completion": None}, "has no `completion`"),
        ("prompt+completion", {"prompt": "a"}, "has no `completion`"),
        ("prompt+completion", {"prompt": 7, "completion": "b"}, "has a `prompt` that is no text but int"),
        ("prompt+completion", {"prompt": TURNS, "completion": "b"}, "has a `prompt` that is no text but list"),
        (
            "prompt+completion",
            {"prompt": [ANSWER], "completion": [QUESTION]},
            "has no answer of the role `assistant` to learn",
        ),
        (
            "instruction+output",
            {"instruction": "i", "input": 7, "output": "o"},
            "has an `input` that is no text but int",
        ),
        ("instruction+output", {"instruction": "i", "output": ""}, "has an empty `output`"),
        ("messages", {"messages": []}, "has no list of `messages`"),
        ("messages", {"messages": "hello"}, "has no list of `messages`"),
        ("messages", {"messages": [{"content": "a"}]}, "has a message without `role`"),
        ("messages", {"messages": ["a"]}, "has a message without `role`"),
        ("messages", {"messages": [{"role": "user", "content": " "}]}, "has an empty `content`"),
        ("messages", {"messages": [QUESTION, {"role": "assistant"}]}, "has no `content`"),
        ("messages", {"messages": [QUESTION]}, "has no answer of the role `assistant` to learn"),
        ("messages", {"messages": [ANSWER, QUESTION]}, "has no answer of the role `assistant` to learn"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "has a `content` that is no text but list",
        ),
        ("conversations", {"conversations": [{"from": None, "value": "a"}]}, "has a message without `role`"),
        ("input_ids", {"input_ids": []}, "has an empty `input_ids`"),
        ("input_ids", {"input_ids": "1 2"}, "has no list of whole numbers as `input_ids`"),
        ("input_ids", {"input_ids": [1.5]}, "has no list of whole numbers as `input_ids`"),
        ("input_ids", {"input_ids": [1, -2]}, "has the token -2 in `input_ids`"),
        ("input_ids", {"input_ids": [1, 2], "labels": [1]}, "has 1 `labels` for 2 `input_ids`"),
        ("input_ids", {"input_ids": [1, 2], "attention_mask": [1, 1, 1]}, "has 3 `attention_mask` for 2 `input_ids`"),
    ],
)
def test_what_is_wrong_with_a_row_is_told(name: str, row: Row, problem: str) -> None:
    with pytest.raises(MalformedError) as raised:
        named(name).read(row)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("text+label", {"text": "a", "label": None}, "has no `label`"),
        ("text+label", {"text": "a", "label": 0.37}, "has a `label` that is no class but 0.37"),
        ("text+label", {"text": "a", "label": ""}, "has an empty `label`"),
        ("text+label", {"text": "", "label": 1}, "has an empty `text`"),
        ("text+text_pair+label", {"text": "a", "label": 1}, "has no `text_pair`"),
        ("prompt+chosen+rejected", {"prompt": "q", "chosen": "a", "rejected": ""}, "has an empty `rejected`"),
        (
            "prompt+chosen+rejected",
            {"prompt": "q", "chosen": "a", "rejected": "a"},
            "has the same text as `chosen` and as `rejected`",
        ),
        (
            "prompt+chosen+rejected",
            {"prompt": "q", "chosen": TURNS, "rejected": "a"},
            "has a text and a list of messages as `chosen` and `rejected`",
        ),
        ("prompt+chosen+rejected", {"prompt": None, "chosen": "a", "rejected": "b"}, "has no `prompt`"),
        ("chosen+rejected", {"chosen": "a", "rejected": "b"}, "has no `prompt`"),
    ],
)
def test_what_is_wrong_with_a_row_of_another_task_is_told(name: str, row: Row, problem: str) -> None:
    task = "dpo" if "chosen" in name else "classification"
    with pytest.raises(MalformedError) as raised:
        named(name, task).read(row)
    assert str(raised.value) == problem
