from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmtune_trainer.data import processes
from llmtune_trainer.data.encoding import Encoded, Row
from llmtune_trainer.data.files import Raw
from llmtune_trainer.data.formats import FORMATS
from llmtune_trainer.data.processes import encode_all
from llmtune_trainer.data.rows import Malformed, Rows, collect
from llmtune_trainer.errors import BadInputError

TEXT = FORMATS["sft"][-1]
COUNT = 1300  # more than two batches


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Every seventh row is malformed, and every tenth has the same text."""
    raw = (
        Raw(f"a.jsonl, line {number}", {"text": " " if number % 7 == 3 else f"é {number if number % 10 else 0}"})
        for number in range(COUNT)
    )
    return collect(raw, TEXT, tmp_path_factory.mktemp("rows") / "rows")


def test_rows_are_found_again_by_their_numbers(rows: Rows) -> None:
    assert len(rows) == COUNT
    good = [number for number in range(COUNT) if number % 7 != 3]
    assert list(rows.good(range(COUNT))) == good
    some = sorted(random.Random(0).sample(good, 200))
    assert [row["text"] for row in rows.take(some)] == [f"é {number if number % 10 else 0}" for number in some]


def test_a_part_knows_its_own_good_and_malformed_rows(rows: Rows) -> None:
    assert list(rows.good(range(603, 607))) == [603, 604, 606]
    first = 'a.jsonl, line 605 has an empty `text`: {"text": " "}'
    assert rows.malformed(range(600, 615)) == Malformed(2, first)
    assert rows.malformed(range(606, 612)) == Malformed(0, None)
    assert rows.malformed(range(0)) == Malformed(0, None)


def test_equal_rows_have_equal_identities(rows: Rows) -> None:
    one, same, other = rows.identities([600, 610, 601])
    assert one == same != other


def test_half_a_character_is_one_malformed_row(tmp_path: Path) -> None:
    texts = [{"text": "whole"}, {"text": "cut \ud83d"}, {"other": "\ud83d"}]
    raw = [Raw(f"line {number}", row) for number, row in enumerate(texts, 1)]
    found = collect(raw, TEXT, tmp_path / "rows")
    assert list(found.good(range(3))) == [0]
    assert found.malformed(range(3)) == Malformed(
        2, 'line 2 has half of a character (a lone surrogate): {"text": "cut ?"}'
    )


# --- several processes --------------------------------------------------------------------------------------


def encoder(row: Row) -> Encoded:
    if row["number"] == 777_777:
        raise BadInputError("not this one")
    if row["number"] % 250 == 0:
        time.sleep(0.05)  # so that another process takes the next rows
    return Encoded([{"input_ids": [row["number"], os.getpid()]}])


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FEW_ROWS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))


def numbered(count: int) -> Any:
    return ({"number": number} for number in range(count))


def test_several_processes_keep_the_order(many: None) -> None:
    found = [one.examples[0]["input_ids"] for one in encode_all(numbered(2000), encoder, 2000)]
    assert [number for number, _ in found] == list(range(2000))
    pids = {pid for _, pid in found}
    assert os.getpid() not in pids
    assert len(pids) > 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_few_rows_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert next(encode_all(numbered(1), encoder, 1)).examples[0]["input_ids"] == [0, os.getpid()]


def test_the_error_of_a_process_is_that_of_the_whole(many: None) -> None:
    rows = [{"number": 1}] * 500 + [{"number": 777_777}]
    with pytest.raises(BadInputError, match="not this one"):
        list(encode_all(rows, encoder, len(rows)))


def test_rows_are_not_read_far_ahead(many: None) -> None:
    read = 0

    def counted() -> Any:
        nonlocal read
        for row in numbered(100_000):
            read += 1
            yield row

    encoded = encode_all(counted(), encoder, 100_000)
    next(encoded)
    assert read <= 5 * processes.CHUNK
    encoded.close()  # type: ignore[attr-defined]


KILLED = """
import os, time
from llmtune_trainer.data import processes
from llmtune_trainer.data.encoding import Encoded
processes.FEW_ROWS, os.sched_getaffinity = 0, lambda _: range(3)
def encoder(row):
    time.sleep(0.01)
    return Encoded([{"pid": os.getpid()}])
pids = set()
for one in processes.encode_all(({} for _ in range(100_000)), encoder, 100_000):
    pids.add(one.examples[0]["pid"])
    if len(pids) == 2:
        print(*pids, flush=True)
        time.sleep(60)
"""


def test_the_processes_of_one_that_is_killed_die_with_it() -> None:
    """They have its locks, for which others wait."""
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        os.kill(parent.pid, signal.SIGKILL)
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
