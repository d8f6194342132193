from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.gjson import MISSING, PathError, get

STATUS = {
    "status": {
        "phase": "Succeeded",
        "succeeded": 1,
        "a.b": "dotted",
        "conditions": [
            {"type": "Complete", "status": "False", "n": 1},
            {"type": "Complete", "status": "True", "n": 2, "reason": "CompletionsReached"},
            {"type": "Failed", "status": "False", "n": 3},
        ],
    }
}
COMPLETE = STATUS["status"]["conditions"][:2]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("status.phase", "Succeeded"),
        ("status|phase", "Succeeded"),
        ("status.a\\.b", "dotted"),
        ("status.conditions.1.reason", "CompletionsReached"),
        ("status.conditions.#.n", [1, 2, 3]),
        ('status.conditions.#(type=="Complete")#', COMPLETE),
        ('status.conditions.#(type=="Complete")', COMPLETE[0]),
        ('status.conditions.#(type=="Complete")#|#(status=="True")#', [COMPLETE[1]]),
        ('status.conditions.#(type=="Failed")#|#(status=="True")#', []),
        ('status.conditions.#(type=="Complete")#.status', ["False", "True"]),
        ('status.conditions.#(type=="Complete")#|0.status', "False"),
        ("status.conditions.#(n==2).type", "Complete"),
        ("status.conditions.#(n>=2)#.n", [2, 3]),
        ('status.conditions.#(type!="Complete")#.n', [3]),
        ("status.conditions.#(reason)#.n", [2]),
        ('status.[@this].#(phase=="Succeeded")#', [STATUS["status"]]),
        ("status.[@this].#(succeeded==1)", STATUS["status"]),
        ("status.[@this].#(succeeded==2)", MISSING),
        ('status.[@this].#(succeeded=="1")', MISSING),
        ("status.@this.phase", "Succeeded"),
        ("status.conditions.7", MISSING),
        ("absent.conditions", MISSING),
        ('status.phase.#(type=="Complete")#', MISSING),
    ],
)
def test_a_path_selects_what_gjson_selects(path: str, expected: Any) -> None:
    assert get(STATUS, path) == expected


@pytest.mark.parametrize("path", ["", "a..b", "a.#(b==", "a.#(b==c)", "a.@reverse", "a.[b,c]"])
def test_an_unsupported_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        get({"a": [{}]}, path)


def test_no_query_keeps_the_reader_busy() -> None:
    assert get({"a": [{"b": 1}]}, "a.#(b" + " " * 50_000 + ")") == {"b": 1}
