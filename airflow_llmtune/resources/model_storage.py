"""Where a model to serve lies, in the forms that KServe's storage initializer takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources.source import Source

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["ModelStorage"]

_CLAIM = r"pvc://[^/]+/(.+)"


class ModelStorage(NamedTuple):
    """Either a ``uri`` that KServe fetches or mounts, or a ``path`` at which each pod finds the model already."""

    uri: str | None = None
    path: str | None = None

    @classmethod
    def read(cls, argument: str, text: Any, problems: Problems) -> ModelStorage | None:
        source = Source.read(argument, text, problems)
        if source is None:
            return None
        if source.claim is not None:
            return cls(uri=str(text).rstrip("/"))
        if source.flag.startswith("hf://"):
            return _from_hub(argument, source, problems)
        if source.flag.startswith("s3://"):
            return cls(uri=source.flag)
        return cls(path=source.flag.removeprefix("file://"))

    def folder(self, mount_path: str) -> str:
        """Where it lies in a pod, as one of ``storageUris``: KServe mounts the whole claim, without the path in it."""
        if self.path is not None:
            return self.path
        claim = re.fullmatch(_CLAIM, str(self.uri))
        return f"{mount_path}/{claim[1]}" if claim is not None else mount_path


def _from_hub(argument: str, source: Source, problems: Problems) -> ModelStorage | None:
    """KServe writes the revision behind a colon, and splits the address at each slash."""
    if source.revision is None:
        return ModelStorage(uri=source.flag)
    if "/" in source.revision:
        rule = "has a revision with a slash, which KServe's storage initializer cannot read"
        problems.add(argument, source.address, rule, "give a commit, or a tag without a slash")
        return None
    return ModelStorage(uri=f"{source.flag}:{source.revision}")
