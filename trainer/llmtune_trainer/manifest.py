"""What a result came from, so that two of them can be compared and one can be made again."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmtune_trainer import __version__
from llmtune_trainer.addresses import public_name
from llmtune_trainer.settings import Settings

# Part of the fingerprint: with another definition of the loss the numbers would no longer compare.
LOSS = "mean negative log-likelihood over the learned tokens"


def describe(
    settings: Settings,
    *,
    base_model_revision: str | None,
    dataset_version: str | None,
    data: Mapping[str, Any],
    steps: int,
    trained_tokens: int,
    evaluation: Mapping[str, Any],
    classes: Sequence[str],
    unservable: Sequence[str],
) -> dict[str, Any]:
    """Return the manifest.

    :param data: what was found in the data: format, rows, malformed, truncated, dropped, tokens, remarks on it.
    :param unservable: why vLLM would not serve what was trained.
    """
    return {
        "base_model": public_name(settings.model_name_or_path),
        "base_model_revision": base_model_revision,
        "dataset": public_name(settings.dataset_name),
        "dataset_version": dataset_version,
        "parameters": settings.chosen(),
        "rows": dict(data["rows"]),
        "steps": steps,
        "trained_tokens": trained_tokens,
        "trainer_version": __version__,
        "evaluation": dict(evaluation),
        "data": {name: value for name, value in data.items() if name != "rows"},
        "servable": not unservable,
        "unservable": list(unservable),
        **({"classes": list(classes)} if classes else {}),
    }


def evaluation_of(settings: Settings, fingerprint: str, rows: int) -> dict[str, Any]:
    """Return what makes two evaluations comparable: the rows, and what their loss is computed with."""
    if settings.task == "dpo":
        beta = settings.hyperparameter("beta")
        fingerprint = hashlib.sha256(f"{fingerprint} beta={beta!r}".encode()).hexdigest()[:16]
    return {"fingerprint": fingerprint, "rows": rows}


def fingerprint_of(rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Of tokens and labels as the loss sees them, in any order. So --max_length counts where it cuts something off."""
    digests = sorted(hashlib.sha256(b"|".join(array("q", part).tobytes() for part in row)).digest() for row in rows)
    return hashlib.sha256(LOSS.encode() + b"".join(digests)).hexdigest()[:16]
