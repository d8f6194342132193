from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.collectors.filters import DEFAULT_FILTER, compile_filter
from airflow_llmtune.controlplane.collectors.flags import FlagError, parse_flags
from airflow_llmtune.controlplane.collectors.json_format import FormatError
from airflow_llmtune.controlplane.collectors.stop_rules import LineReader, NotANumberError, StopWatch, parse_rule
from both_modes import both_modes

PATTERNS = [compile_filter(DEFAULT_FILTER)]


def stopped_at(rules: list[str], values: list[tuple[str, float]], objective_type: str = "maximize") -> int | None:
    """The report after which the training shall stop."""
    watch = StopWatch([parse_rule(rule) for rule in rules], "acc", objective_type)
    for number, (name, value) in enumerate(values, 1):
        watch.report(name, value)
        if watch.is_met:
            return number
    return None


def reports(*values: float, name: str = "acc") -> list[tuple[str, float]]:
    return [(name, value) for value in values]


@pytest.mark.parametrize(
    ("rules", "values", "expected"),
    [
        (["acc;0.5;less;0"], reports(0.6, 0.1), None),  # The best so far stays 0.6.
        (["acc;0.5;less;0"], reports(0.4), 1),
        (["acc;0.5;less;3"], reports(0.1, 0.2, 0.3), 3),
        (["acc;0.5;less;3"], reports(0.1, 0.7, 0.3), None),
        (["acc;0.5;greater;2"], reports(0.4, 0.5, 0.6), 3),
        (["acc;0.5;equal;0"], reports(0.4, 0.5), 2),
        (["loss;2;greater;0"], reports(1, 3, 1, name="loss"), 2),
        (["acc;0.5;less;0", "loss;2;greater;0"], [*reports(0.1, 0.9), *reports(3, name="loss")], 3),
        (["loss;2;greater;0", "loss;1;less;0"], reports(3, 2, 0.5, name="loss"), 3),
    ],
)
def test_every_rule_has_to_be_met_once(rules: list[str], values: list[tuple[str, float]], expected: int | None) -> None:
    assert stopped_at(rules, values) == expected


def test_the_best_of_a_minimized_objective_is_its_smallest() -> None:
    assert stopped_at(["acc;0.5;greater;2"], reports(0.4, 0.9, 0.9), "minimize") is None
    assert stopped_at(["acc;0.5;greater;2"], reports(0.6, 0.9), "minimize") == 2


def reader(*rules: str, strict: bool = False, json: bool = False) -> LineReader:
    watch = StopWatch([parse_rule(rule) for rule in rules], "loss", "minimize")
    return LineReader(watch, None if json else PATTERNS, strict=strict)


def test_lines_of_text_and_of_json_are_read() -> None:
    text = reader("loss;1;greater;2")
    assert [text.read(line) for line in ("loss=2", "epoch=3", "other", "acc=9 loss=1.5")] == [False, False, False, True]
    lines = reader("loss;1;greater;2", json=True)
    assert [lines.read(line) for line in ('{"loss": "2"}', '{"loss": 3}', "", '{"loss": " 4 "}')] == [
        False,
        False,
        False,
        True,
    ]
    with pytest.raises(FormatError):
        lines.read("loss=1")


@both_modes("early-stopping-needs-numbers")
def test_a_value_that_is_no_number_is_passed_over_or_fatal(strict: bool) -> None:
    lines = reader("loss;1;greater;0", strict=strict)
    if strict:
        with pytest.raises(NotANumberError, match="Unable to parse value '' to float for metric loss"):
            lines.read("loss=nan")
        with pytest.raises(NotANumberError, match="metric state"):
            lines.read("loss=0.5 state=good")
    else:
        assert not lines.read("loss=nan")
        assert not lines.read("loss=0.5 state=good")
        assert not reader("loss;1;greater;0", json=True).read('{"loss": "inf"}')


@pytest.mark.parametrize("text", ["loss;1;less", "loss;x;less;1", "loss;1;unlike;1", "loss;1;less;x", "a;b;1;less;1"])
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FlagError, match="-stop-rule"):
        parse_flags(["-t", "t", "-m", "loss", "-path", "/m", "-stop-rule", text])


def test_flags_are_read_as_go_reads_them() -> None:
    words = ["-t", "t", "--m=loss;acc", "-path", "/x/m.log", "-f", "-?(a)(b);(c)(d)", "-w", "false", "-s-db", "db:6789"]
    flags = parse_flags(words)
    assert (flags.metrics, flags.filters, flags.wait_all) == (("loss", "acc"), ("-?(a)(b)", "(c)(d)"), False)
    assert (flags.format, flags.stop_rules) == ("TEXT", ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-x", "1"], "flag provided but not defined: -x"),
        (["loss"], "flag provided but not defined: loss"),
        (["-t"], "flag needs an argument: -t"),
        (["-t", "t"], "required: -m, -path"),
        (["-t", "t", "-m", "m", "-path", "/p", "-format", "XML"], "format must be set TEXT or JSON"),
    ],
)
def test_flags_that_cannot_be_read_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        parse_flags(words)
