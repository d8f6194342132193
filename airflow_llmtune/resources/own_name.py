"""The name of an object in its own manifest, which is made before the object has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OWN_NAME", "fill_in"]

# No author's text can hold it: a process can be given none with a NUL.
OWN_NAME = "\0own-name\0"


def fill_in(manifest: Any, name: str) -> Any:
    """A copy of the manifest in which the object's name stands wherever it is referred to."""
    if isinstance(manifest, Mapping):
        return {key: fill_in(value, name) for key, value in manifest.items()}
    if isinstance(manifest, list):
        return [fill_in(item, name) for item in manifest]
    return manifest.replace(OWN_NAME, name) if isinstance(manifest, str) else manifest
