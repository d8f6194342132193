"""What stands for a container image here: a prefix of programs, a function, or just the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from airflow_llmtune.controlplane.kubelet.in_process import InProcessImage


class ImageError(Exception):
    """No program is known under this image name."""


class Images:
    """``prefixes`` None: every image is the host itself, with the host's PATH."""

    def __init__(self, prefixes: Mapping[str, Path] | None, in_process: Mapping[str, InProcessImage]) -> None:
        self._prefixes = prefixes
        self._in_process = in_process

    def in_process(self, image: str) -> InProcessImage | None:
        return self._in_process.get(image) or self._in_process.get(without_tag(image))

    def environment(self, image: str) -> dict[str, str]:
        """The variables an image brings; raises ImageError when it is not known."""
        path = os.environ.get("PATH", os.defpath)
        if self._prefixes is None:
            return {"PATH": path}
        prefix = self._prefixes.get(image) or self._prefixes.get(without_tag(image))
        if prefix is None:
            known = ", ".join(sorted({*self._prefixes, *self._in_process})) or "none"
            raise ImageError(f'image "{image}" is not known here; known are: {known}')
        return {"PATH": f"{prefix / 'bin'}{os.pathsep}{path}", "VIRTUAL_ENV": str(prefix)}


def without_tag(image: str) -> str:
    """The name without ``@digest`` and ``:tag``; a colon before a slash belongs to the registry's port."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
