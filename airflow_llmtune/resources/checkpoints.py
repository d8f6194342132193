"""Checkpoints of the trainer: how often it saves one, and where, so that another run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.source import Source

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = [
    "CHECKPOINT_ARGUMENTS",
    "GRACE_SECONDS",
    "KEEP_FLAG",
    "PLACE_FLAG",
    "RESERVED_CHECKPOINT_FLAGS",
    "SAVE_FLAG",
    "Checkpoints",
]

SAVE_FLAG, PLACE_FLAG, KEEP_FLAG = "save_steps", "checkpoint_dir", "keep_checkpoints"
# The arguments that they follow from, and the operators that have these.
CHECKPOINT_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {SAVE_FLAG: "checkpoint_steps", PLACE_FLAG: "checkpoint_uri", KEEP_FLAG: "checkpoint_uri"}
)
RESERVED_CHECKPOINT_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        SAVE_FLAG: "FineTuneLLMOperator(checkpoint_steps=…)` or `KatibTuneLLMOperator(checkpoint_steps=…)",
        PLACE_FLAG: "KatibTuneLLMOperator(checkpoint_uri=…)",
        KEEP_FLAG: "KatibTuneLLMOperator(checkpoint_uri=…)",
    }
)
# A run that is stopped ends its step and saves; of Kubernetes it would have 30 seconds for that.
GRACE_SECONDS = 60


class Checkpoints(NamedTuple):
    """Without a ``place`` they go below the output, and after success they are removed."""

    steps: int | None
    place: Source | None

    @classmethod
    def read(cls, steps: Any, uri: Any, problems: Problems, *, shared: bool) -> Checkpoints:
        """``shared``: by runs that have no output in common, so that they need a place."""
        every = None if steps is None else problems.integer("checkpoint_steps", steps, at_least=1)
        place = None if uri is None else Source.read("checkpoint_uri", uri, problems, hub=False)
        if steps is None and uri is not None:
            rule = "is missing, and `checkpoint_uri` would stay empty"
            problems.add("checkpoint_steps", None, rule, "give such as 50, or leave both out")
        if shared and uri is None and steps is not None:
            rule = "is missing: trials have no other place to save in that they share"
            problems.add("checkpoint_uri", None, rule, "give such as pvc://claim/path, or leave both out")
        return cls(every, place)

    @property
    def flags(self) -> dict[str, str]:
        flags = {} if self.steps is None else {SAVE_FLAG: str(self.steps)}
        return flags if self.place is None else {**flags, PLACE_FLAG: self.place.flag, KEEP_FLAG: "true"}
