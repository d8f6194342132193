"""Asks a model that was just deployed one question, as its clients will."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx  # noqa: TID253 (only a task that asks imports this module)

from airflow_llmtune.exceptions import DeploymentFailedError
from airflow_llmtune.resources.redaction import redacted
from airflow_llmtune.resources.smoke_test import SmokeTest

__all__ = ["ask"]

# The gateway learns of a new route a little later than KServe.
NOT_YET = frozenset({404, 502, 503, 504})
RETRY_SECONDS = 60.0
ANSWER_SECONDS = 120.0
PAUSE_SECONDS = 1.0


def ask(url: str, test: SmokeTest, token: str | None, log: Callable[..., None]) -> dict[str, Any]:
    """Return question and answer; raise when there is none, or when it is not what was expected."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    begin = time.monotonic()
    with httpx.Client(headers=headers, timeout=httpx.Timeout(ANSWER_SECONDS, connect=10.0)) as client:
        response = _send(client, url.rstrip("/"), test, begin + RETRY_SECONDS, log, token or "")
    answer, wrong = test.read_answer(_decoded(response))
    if wrong is not None:
        raise DeploymentFailedError(f"The smoke test of model {test.model!r} failed: {wrong}")
    return {"prompt": test.prompt, "answer": answer, "seconds": round(time.monotonic() - begin, 3)}


def _send(
    client: httpx.Client, url: str, test: SmokeTest, deadline: float, log: Callable[..., None], token: str
) -> httpx.Response:
    questions = test.requests()
    while True:
        path, body = questions[0]
        failure, passing = f"{url}{path} cannot be reached", True
        try:
            response = client.post(f"{url}{path}", json=body)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            failure = f"{failure}: {error or type(error).__name__}"
            passing = isinstance(error, httpx.TransportError)
        else:
            if response.is_success:
                return response
            if len(questions) > 1 and test.is_without_chat(response.status_code, response.text):
                questions.pop(0)
                continue
            failure = f"{url}{path} answered {response.status_code}: {response.text[:500]}"
            passing = response.status_code in NOT_YET
        failure = redacted(failure, [token])  # A gateway may repeat what it refuses.
        if not passing or time.monotonic() > deadline:
            raise DeploymentFailedError(f"The smoke test of model {test.model!r} failed: {failure}")
        log("The model does not answer yet: %s", failure)
        time.sleep(PAUSE_SECONDS)


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
