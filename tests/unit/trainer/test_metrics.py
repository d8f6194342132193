from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from llmtune_trainer.metrics import Log, metric_line


def test_a_metric_line_has_a_time_in_utc_and_every_digit() -> None:
    noon_in_berlin = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    assert (
        metric_line("eval_loss", 2.9031234567, noon_in_berlin) == "2026-11-22T09:00:00.123456Z eval_loss=2.9031234567"
    )


def test_the_time_keeps_its_microseconds_when_they_are_zero() -> None:
    assert metric_line("epoch", 1, datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z epoch=1.0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_printed(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    Log(speaks=True).metric("eval_loss", value)
    assert capsys.readouterr().out == ""


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    Log(speaks=False).say("hello")
    Log(speaks=False).metric("eval_loss", 1.0)
    assert capsys.readouterr().out == ""
