"""Where a model, a data set or an output lies: as the author writes it, and as the trainer finds it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.meta import is_plain

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["Source", "mount_path"]

_HUB = r"(?a)(?:hf://)?(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?"
_S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?"
_CLAIM = r"pvc://(?P<claim>[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(?P<path>/.*)?"
_PATH = r"(file://)?/.*"
_FORMS = "an absolute path, file:///path, s3://bucket/prefix, pvc://claim/path"


def mount_path(claim: str) -> str:
    return f"/mnt/{claim}"


class Source(NamedTuple):
    """``flag`` is what the trainer is told; a ``claim`` has to be mounted for it."""

    flag: str
    revision: str | None = None
    claim: str | None = None

    @property
    def address(self) -> str:
        """With its revision, for a flag that has none of its own for that."""
        return self.flag if self.revision is None else f"{self.flag}@{self.revision}"

    @classmethod
    def read(cls, argument: str, text: Any, problems: Problems, *, hub: bool = True) -> Source | None:
        """``hub``: the Hugging Face Hub will do."""
        if is_plain(text) and isinstance(text, str):
            text = text.rstrip("/") or text
            if claimed := re.fullmatch(_CLAIM, text):
                claim = claimed["claim"]
                return cls(mount_path(claim) + (claimed["path"] or ""), claim=claim)
            if re.fullmatch(_PATH, text) or re.fullmatch(_S3, text):
                return cls(text)
            if hub and (found := re.fullmatch(_HUB, text)):
                return cls(f"hf://{found['name']}", revision=found["revision"])
        fix = f"give {_FORMS}" + (", hf://org/name[@revision] or org/name[@revision]" if hub else "")
        problems.add(argument, text, "is no address that the trainer can reach", fix)
        return None
