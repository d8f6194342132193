from __future__ import annotations

import json
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


def test_as_json_each_line_is_an_object_and_each_value_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Katib's parser gives up on a line that is no object, and leaves out numbers."""
    log = Log(speaks=True, form="json")
    log.say('a "remark"')
    log.metric("eval_loss", 2.9031234567)
    log.metric("eval_loss", math.nan)
    remark, metric = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert remark.pop("timestamp").endswith("Z")
    assert remark == {"message": 'a "remark"'}
    assert metric.pop("timestamp").endswith("Z")
    assert metric == {"eval_loss": "2.9031234567"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_that_katib_would_not_take_for_one_is_mended(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    Log(speaks=True, form=form).metric("eval_rewards/margin", 1.0)
    assert "eval_rewards_margin" in capsys.readouterr().out


class Reports(list[tuple[str, float, str]]):
    def report(self, name: str, value: float, time: str) -> None:
        self.append((name, value, time))


def test_what_is_printed_is_pushed_too_by_the_first_process_only(capsys: pytest.CaptureFixture[str]) -> None:
    pushed, silent = Reports(), Reports()
    Log(speaks=True, push=pushed).metric("eval_loss", 2.5)
    Log(speaks=True, push=pushed).metric("eval_loss", math.inf)
    Log(speaks=False, push=silent).metric("eval_loss", 2.5)
    time = capsys.readouterr().out.split(" ")[0]
    assert pushed == [("eval_loss", 2.5, time)]
    assert silent == []
