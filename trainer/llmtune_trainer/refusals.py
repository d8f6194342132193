"""What libraries refuse of files and settings, as the bad input that it is; what else they raise stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings


@contextmanager
def as_bad_input(what: str, fix: str, folder: Path | None = None) -> Iterator[None]:
    """Around a call that judges its input, and no other.

    :param folder: the files that are read; those that are broken are named.
    """
    try:
        yield
    except Exception as error:
        if not _is_refusal(error):
            raise
        broken = [] if folder is None else _broken_files(folder)
        which = f" ({', '.join(broken)}: broken)" if broken else ""
        line = next(iter(str(error).strip().splitlines()), "").rstrip(". ")
        reason = f"{type(error).__name__}: {line[:300]}"
        raise BadInputError(f"{what} cannot be used{which}: {reason}. Fix: {fix}.") from error


def loading(settings: Settings, folder: Path) -> AbstractContextManager[None]:
    of = f"`--model_name_or_path`={settings.model_name_or_path!r}, loaded from {folder},"
    return as_bad_input(of, "give a complete model, of a kind that transformers knows", folder)


def making_trainer(settings: Settings) -> AbstractContextManager[None]:
    given = ", ".join(f"`--{name}`={value!r}" for name, value in settings.chosen().items()) or "the defaults"
    return as_bad_input(f"One of {given}, or the model for it,", "correct the setting that this is about")


def _is_refusal(error: Exception) -> bool:
    from safetensors import SafetensorError

    if isinstance(error, OSError):
        # The libraries' own have no number; those of a full disk or a network do.
        return isinstance(error, FileNotFoundError) or (type(error) is OSError and error.errno is None)
    # tokenizers raises nothing but Exception.
    refusals = (ValueError, TypeError, LookupError, ImportError, SafetensorError)
    return isinstance(error, refusals) or type(error) is Exception


def _broken_files(folder: Path) -> list[str]:
    return [file.name for file in sorted(folder.iterdir()) if file.is_file() and _is_broken(file)]


def _is_broken(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="numpy"):
                pass
    except (ValueError, OSError, SafetensorError):
        return True
    return False
