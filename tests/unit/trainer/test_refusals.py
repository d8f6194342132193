"""What of a library's errors is told as bad input, and what stays as it is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.refusals import as_bad_input


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no."),
        TypeError("no\nand more"),
        KeyError("no"),
        ImportError("no"),
        OSError("no"),
        FileNotFoundError(errno.ENOENT, "no"),
        SafetensorError("no"),
        Exception("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_is_bad_input_in_one_line(error: Exception) -> None:
    with (
        pytest.raises(BadInputError, match=r"^It cannot be used: \w+: .*no'?\. Fix: change it\.$"),
        as_bad_input("It", "change it"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "disk"), TimeoutError("slow"), RuntimeError("out of memory")],
    ids=str,
)
def test_what_the_machine_lacks_is_no_bad_input(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, as_bad_input("It", "change it"):
        raise error
    assert raised.value is error


def test_the_broken_files_of_a_folder_are_named(tmp_path: Path) -> None:
    for name, content in {"config.json": "{}", "tokenizer.json": "{", "model.safetensors": "x", "a.txt": "{"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with (
        pytest.raises(
            BadInputError, match=r"It cannot be used \(model.safetensors, tokenizer.json: broken\): ValueError: no"
        ),
        as_bad_input("It", "change it", tmp_path),
    ):
        raise ValueError("no")
