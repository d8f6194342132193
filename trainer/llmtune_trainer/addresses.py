"""How the places of models, data, adapters, outputs and caches are written: a path, file://, hf:// or s3://."""

from __future__ import annotations

from pathlib import Path


def local_path(source: str) -> Path | None:
    """Return None for what lies elsewhere."""
    if source.startswith("file://"):
        return Path("/" + source.removeprefix("file://").lstrip("/"))
    return None if "://" in source else Path(source).expanduser()


def public_name(source: str) -> str:
    """Return how others load the same model: an absolute path, a Hub id or the S3 address."""
    if source.startswith("s3://"):
        return source
    path = local_path(source)
    if path is not None and path.exists():
        return str(path.resolve())
    return hub_name(source)[0]


def hub_name(source: str) -> tuple[str, str | None]:
    """Return the repository, and the revision of ``hf://org/name@revision``."""
    name, _, revision = source.removeprefix("hf://").removeprefix("datasets/").partition("@")
    return name, revision or None
