"""What a client sees of a bad network and of a token that is no longer good."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_llmtune.controlplane.apiserver.errors import failure
from objects import CONFIG_MAPS

MANUAL = Path(__file__).parents[3] / "docs" / "how-to" / "control-plane.md"

Served = Any  # the fixture's type lives in conftest, which cannot be imported


def test_a_refused_request_has_no_answer_and_no_effect(served: Served) -> None:
    served.faults.add(method="POST", refuse=True)
    with pytest.raises(httpx.TransportError):
        served.http.post(CONFIG_MAPS, json={"metadata": {"name": "c"}})
    assert served.http.get(f"{CONFIG_MAPS}/c").status_code == 404
    assert served.create_config_map("c")["metadata"]["name"] == "c"


def receive(served: Served, received: list[bytes]) -> None:
    with served.http.stream("GET", CONFIG_MAPS) as answer:
        assert answer.status_code == 200
        received.extend(answer.iter_raw())


def test_a_list_breaks_off_in_the_middle(served: Served) -> None:
    for index in range(5):
        served.create_config_map(f"c{index}")
    served.faults.add(CONFIG_MAPS, cut_body_after=100)
    received: list[bytes] = []
    with pytest.raises(httpx.TransportError):
        receive(served, received)
    assert b"".join(received).startswith(b'{"kind":"ConfigMapList"')
    assert len(served.http.get(CONFIG_MAPS).json()["items"]) == 5


def test_a_slow_body_arrives_in_full(served: Served) -> None:
    served.create_config_map("c", text="a" * 1000)
    served.faults.add(CONFIG_MAPS, body_seconds=0.2)
    started = time.monotonic()
    assert served.http.get(CONFIG_MAPS).json()["items"][0]["data"] == {"text": "a" * 1000}
    assert time.monotonic() - started >= 0.2


def test_a_compressed_answer_can_be_slow_too(served: Served) -> None:
    served.create_config_map("c", text="a" * 200_000)
    served.faults.add(CONFIG_MAPS, body_seconds=0.05)
    assert served.http.get(CONFIG_MAPS).headers["content-encoding"] == "gzip"


def test_an_old_token_is_unauthorized_until_the_new_one_is_used(served: Served) -> None:
    served.thread.call(served.api.accept_token, "new")
    answer = served.http.get(CONFIG_MAPS)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert served.http.get(CONFIG_MAPS, headers={"authorization": "Bearer new"}).status_code == 200


REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@pytest.mark.parametrize("path", [CONFIG_MAPS, f"{CONFIG_MAPS}/c"], ids=["list", "get"])
@pytest.mark.parametrize(("code", "reason"), REASONS.items())
def test_an_error_can_be_ordered_with_its_reason(served: Served, code: int, reason: str, path: str) -> None:
    served.create_config_map("c")
    served.faults.add(path, code=code, message="as ordered")
    served.faults.add(path, code=code, message="as ordered", retry_after=1, times=2)
    for retry_after in (None, "1", "1"):
        answer = served.http.get(path)
        assert answer.status_code == code
        assert answer.json() == failure(code, reason, "as ordered")
        assert answer.headers.get("retry-after") == retry_after
    assert served.http.get(path).status_code == 200


def test_every_error_of_the_manual_has_a_reason() -> None:
    (row,) = [line for line in MANUAL.read_text().splitlines() if line.startswith("| `code=")]
    named = {int(code) for code in re.findall(r"\b[45]\d\d\b", row)}
    assert named
    assert named <= set(REASONS)
