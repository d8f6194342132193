"""The model server as the process that a pod runs, and how a test asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

KEY = "sesame"
PROMPT = "What does the cat eat?"  # as in tiny_adapter.py
CHAT = [{"role": "user", "content": PROMPT}]
# What the tiny model's chat template makes of it.
CHAT_AS_TEXT = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    client: httpx.Client

    def complete(self, model: str, **fields: Any) -> dict[str, Any]:
        body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}
        return self.ask("/v1/completions", body)

    def chat(self, model: str, **fields: Any) -> dict[str, Any]:
        body = {"model": model, "messages": CHAT, "max_tokens": 12, "temperature": 0, **fields}
        return self.ask("/v1/chat/completions", body)

    def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self.client.post(route, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stream(self, route: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        with self.client.stream("POST", route, json={**body, "stream": True}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]

    def text(self, model: str, **fields: Any) -> str:
        text: str = self.complete(model, **fields)["choices"][0]["text"]
        return text


@contextmanager
def started(*flags: str, **environ: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "llmtune_trainer.serve", "--port=0", *flags],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("listening on "):
                    break
            else:
                pytest.fail("".join(said))
            headers = {"authorization": f"Bearer {KEY}"}
            address = line.removeprefix("listening on ").strip()
            with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
                yield Server(process, client)
        finally:
            process.kill()
