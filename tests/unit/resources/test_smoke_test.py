"""The one question to a model that was just deployed."""

from __future__ import annotations

import pytest

from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.smoke_test import ROOTS, SmokeTest


def read(given, model="chat", root="/v1"):
    problems = Problems()
    return SmokeTest.read(given, model, root, problems), [str(error) for error in problems.errors]


@pytest.mark.parametrize("given", [False, None])
def test_none_is_asked_for(given):
    assert read(given) == (None, [])


def test_it_is_a_chat_and_then_a_text_to_go_on_with():
    test, _ = read({"prompt": "Hi", "max_tokens": "4"})
    chat, text = test.requests()
    common = {"model": "chat", "max_tokens": 4, "temperature": 0}
    assert chat == ("/v1/chat/completions", {**common, "messages": [{"role": "user", "content": "Hi"}]})
    assert text == ("/v1/completions", {**common, "prompt": "Hi"})


@pytest.mark.parametrize(
    ("given", "model", "root", "told"),
    [
        ({"question": "x"}, "chat", "/v1", "`smoke_test.question`='x' is not known"),
        ({"model": "x"}, "chat", "/v1", "`smoke_test.model`='x' is not known"),
        (True, None, "/v1", "`smoke_test.model`=None is not the name of a served model"),
        ({"model": "x"}, None, None, "needs a predictor whose `model.modelFormat` serves OpenAI's API"),
        ({"max_tokens": 0}, "chat", "/v1", "is less than 1"),
        ({"prompt": 5}, "chat", "/v1", "`smoke_test.prompt`=5 is not a text"),
        ({"expect": "("}, "chat", "/v1", "is not a regular expression"),
        ("yes", "chat", "/v1", "is not a mapping"),
    ],
)
def test_a_mistake_is_told(given, model, root, told):
    (found,) = read(given, model, root)[1]
    assert told in found


@pytest.mark.parametrize(
    ("body", "answer", "wrong"),
    [
        ({"choices": [{"message": {"content": "Hello there"}}]}, "Hello there", None),
        ({"choices": [{"text": "Hello there"}]}, "Hello there", None),
        ({"choices": [{"message": {"content": "Bye"}}]}, "Bye", "its answer 'Bye' does not match 'there'"),
        ({"choices": []}, "", "it answered without a text"),
        (None, "", "it answered without a text"),
    ],
)
def test_the_answer_is_the_models_text(body, answer, wrong):
    test, _ = read({"expect": "there"})
    assert test.read_answer(body) == (answer, wrong)


def test_a_model_without_a_template_for_chats_is_told_by_the_servers_words():
    assert SmokeTest.is_without_chat(400, "…the tokenizer does not define a chat template…")
    assert not SmokeTest.is_without_chat(400, "max_tokens is too large")
    assert not SmokeTest.is_without_chat(503, "no chat template")


def test_each_runtime_has_its_own_root():
    assert ROOTS == {"huggingface": "/openai/v1", "vLLM": "/v1"}
