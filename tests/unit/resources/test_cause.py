from __future__ import annotations

import pytest

from airflow_llmtune.resources.cause import gist

NAME = "dag-tune-0a1b2c3d-1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{NAME}-abcde: 3 Insufficient cpu", f"{NAME}-vwxyz: 12 Insufficient cpu"),
        (f'pods "{NAME}-x7k2m9qp-b2c4d" is forbidden', f'pods "{NAME}-q9w8z7x6-z9xw5" is forbidden'),
        (
            "back-off 10s in pod a_ns(0b66b664-1111-4222-8333-444455556666)",
            "back-off 1m20s in pod a_ns(deadbeef-1111-4222-8333-a44455556666)",
        ),
        ("loss=0.125 lr=1e-05", "loss=2 lr=0.03"),
    ],
)
def test_names_and_numbers_do_not_make_another_cause(one: str, other: str) -> None:
    assert gist(one, NAME) == gist(other, NAME)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ended with exit code 3 (Error)", "ended with exit code 137 (Error)"),
        ("3 Insufficient cpu", "3 Insufficient memory"),
        (f"{NAME}: a", "another: a"),
    ],
)
def test_what_says_something_else_is_another_cause(one: str, other: str) -> None:
    assert gist(one, NAME) != gist(other, NAME)
