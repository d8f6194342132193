"""Options of lists and watches that contradict each other."""

from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.apiserver.list_options import check_list_options, check_watch_options
from registries import refused


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"continue": "t", "resourceVersion": "5"}, "specifying resource version is not allowed when using continue"),
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 'is forbidden for resourceVersion "0"'),
        ({"resourceVersionMatch": "Newest", "resourceVersion": "5"}, 'Unsupported value: "Newest"'),
        ({"resourceVersionMatch": "Exact", "continue": "t"}, "is forbidden when continue is provided"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents is forbidden for list"),
    ],
)
def test_lists_refuse(query: dict[str, str], message: str) -> None:
    assert message in refused(check_list_options, query).message


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"continue": "t"},
        {"continue": "t", "resourceVersion": "0"},
        {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": "5", "resourceVersionMatch": "Exact"},
    ],
)
def test_lists_take(query: dict[str, str]) -> None:
    check_list_options(query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"resourceVersionMatch": "NotOlderThan"}, "is forbidden for watch unless sendInitialEvents is provided"),
        ({"sendInitialEvents": "true"}, 'requires setting resourceVersionMatch to "NotOlderThan"'),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "Exact"}, "requires setting resourceVersionMatch"),
    ],
)
def test_watches_refuse(query: dict[str, str], message: str) -> None:
    assert message in refused(check_watch_options, query).message


def test_watches_take_the_two_together() -> None:
    check_watch_options({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"})
    check_watch_options({"resourceVersion": "5"})
