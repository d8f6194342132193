"""One request to a model that was just deployed, in the form of OpenAI's API. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.meta import path
from airflow_llmtune.resources.problems import did_you_mean

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["ROOTS", "SmokeTest"]

# Where a runtime of that model format serves OpenAI's routes.
ROOTS = {"huggingface": "/openai/v1", "vLLM": "/v1"}

_DEFAULTS: Mapping[str, Any] = {"prompt": "Hello", "max_tokens": 16, "expect": None}
# A base model is often without a template for chats; servers then refuse them in these words.
_NO_CHAT = r"(?i)chat[ _]template"


class SmokeTest(NamedTuple):
    model: str
    root: str
    prompt: str
    max_tokens: int
    expect: str | None

    @classmethod
    def read(cls, given: Any, model: str | None, root: str | None, problems: Problems) -> SmokeTest | None:
        """``given``: True, False or a dict; ``model`` and ``root`` where the operator knows them."""
        if given is None or given is False:
            return None
        options = {} if given is True else problems.mapping("smoke_test", given)
        known = [*_DEFAULTS, *(["model"] if model is None else [])]
        for name in [name for name in options if name not in known]:
            problems.add(f"smoke_test.{name}", options[name], "is not known", did_you_mean(name, known))
        if model is None and not isinstance(options.get("model"), str):
            rule = "is not the name of a served model"
            problems.add("smoke_test.model", options.get("model"), rule, "give it, or smoke_test=False")
        if root is None:
            rule = "needs a predictor whose `model.modelFormat` serves OpenAI's API"
            problems.add("smoke_test", given, rule, f"use one of {', '.join(ROOTS)}, or give smoke_test=False")
        settings = {**_DEFAULTS, **options}
        most = problems.integer("smoke_test.max_tokens", settings["max_tokens"], at_least=1)
        for name in ("prompt", "expect"):
            if not isinstance(settings[name], str) and not (name == "expect" and settings[name] is None):
                problems.add(f"smoke_test.{name}", settings[name], "is not a text", "give one")
        _check_pattern(settings["expect"], problems)
        asked = model or str(options.get("model"))
        return cls(asked, root or "", str(settings["prompt"]), most or 1, settings["expect"])

    def requests(self) -> list[tuple[str, dict[str, Any]]]:
        """Path and body: as a chat, and where the model has none, as a text to go on with."""
        common = {"model": self.model, "max_tokens": self.max_tokens, "temperature": 0}
        chat = {**common, "messages": [{"role": "user", "content": self.prompt}]}
        text = {**common, "prompt": self.prompt}
        return [(f"{self.root}/chat/completions", chat), (f"{self.root}/completions", text)]

    def read_answer(self, body: Any) -> tuple[str, str | None]:
        """The model's text, and why it will not do."""
        choice = next(iter(path(body, "choices") or []), None)
        answer = path(choice, "message", "content")
        answer = path(choice, "text") if answer is None else answer
        if not isinstance(answer, str):
            return "", "it answered without a text"
        answer = answer.replace("\0", "")  # An XCom goes to a database, and PostgreSQL takes no such character.
        if self.expect is not None and not re.search(self.expect, answer):
            return answer, f"its answer {answer[:200]!r} does not match {self.expect!r}"
        return answer, None

    @staticmethod
    def is_without_chat(status: int, text: str) -> bool:
        return status in (400, 404, 422, 500) and re.search(_NO_CHAT, text) is not None


def _check_pattern(expect: Any, problems: Problems) -> None:
    try:
        re.compile(expect if isinstance(expect, str) else "")
    except re.error as error:
        problems.add("smoke_test.expect", expect, f"is not a regular expression: {error}", "mend it")
