from __future__ import annotations

import re
import time

import pytest

from airflow_llmtune.controlplane.collectors.filters import DEFAULT_FILTER, FilterError, compile_filter, find_all


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        (r"([\w|-]+)\s*=\s*(\d+)", "a|b-c = 7", ("a|b-c", "7")),
        (r"(\w+)=(\d+)", "é=1 x=٣ y=4", ("y", "4")),
        (r"(a)\s(b)", "a\x0bb", None),
        (r"(\S)(\S)", "\x0b1", ("\x0b", "1")),
        (r"[[:alpha:]](x)([[:^digit:]])", "1xa axb", ("x", "b")),
        (r"(x)|(?i)(LOSS)", "loss", ("", "loss")),
        (r"(?i)(a|B)b(?-i)(c)", "ABc", ("A", "c")),
        (r"(?U)(a+)(b+)", "aabb", ("aa", "b")),
        (r"(?P<name>\w+):(?<value>\d+)", "x:1", ("x", "1")),
        (r"\Q(a)\E(b)(c)", "(a)bc", ("b", "c")),
        (r"(a{,2})(b)", "a{,2}b", ("a{,2}", "b")),
        (r"([]a]+)([^\d-z])", "]a!", ("]a", "!")),
        (r"(\x{61}\x62\143)(\_)", "abc_", ("abc", "_")),
        (r"(a$)|(b\z)", "b", ("", "b")),
        (r"(?m)(^b)(c$)", "a\nbc\n", ("b", "c")),
        (r"(\pL+)=(\p{Greek})", "é=α", ("é", "α")),
    ],
)
def test_an_expression_means_what_it_means_to_go(expression: str, text: str, found: tuple[str, str] | None) -> None:
    match = compile_filter(expression).search(text)
    assert (match and (match[1] or "", match[2] or "")) == found


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(?=a)(b)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!a)(b)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?<=a)(b)", "invalid or unsupported Perl syntax: `(?<=`"),
        ("(?#note)", "invalid or unsupported Perl syntax: `(?#`"),
        ("(?>a)", "invalid or unsupported Perl syntax: `(?>`"),
        ("(?P=name)", "invalid or unsupported Perl syntax: `(?P`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"(a)\Z", r"invalid escape sequence: `\Z`"),
        ("(a)(b", "missing closing ): `(a)(b`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:nothing:]]", "invalid character class range: `[:nothing:]`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*+", "invalid nested repetition operator: `*+`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("(|+)", "missing argument to repetition operator: `+`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_what_go_refuses_is_refused_in_its_words(expression: str, message: str) -> None:
    with pytest.raises(FilterError, match=re.escape(f"error parsing regexp: {message}")):
        compile_filter(expression)


def test_a_filter_with_one_group_finds_nothing() -> None:
    assert list(find_all("loss=1", [compile_filter("(loss)=1")])) == []


@pytest.mark.parametrize("line", ["a" * 1_000_000, ("a" * 500 + " ") * 2000, "loss" + " " * 1_000_000, "=" * 1_000_000])
@pytest.mark.parametrize("expression", [DEFAULT_FILTER, r"((\w+)*)=(x)"])
def test_a_filter_takes_no_longer_than_its_line(line: str, expression: str) -> None:
    start = time.perf_counter()
    assert list(find_all(line, [compile_filter(expression)])) == []
    assert time.perf_counter() - start < 5  # Far less; going back over such a line took minutes.
