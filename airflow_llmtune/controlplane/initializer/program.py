"""Fetch models: ``program.py URI FOLDER [URI FOLDER ...]``; credentials and settings come from the environment.

It is run by the Python of another image, so it imports nothing of this package; each store's client is imported where
it is used.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

_FILES_AT_ONCE = 4
_UNSUPPORTED = "is not supported here: s3://, hf://, file://, pvc:// and paths are"


class FetchError(Exception):
    """A model that cannot be fetched; the text says why."""


def main(words: Sequence[str]) -> int:
    """The exit code; what went wrong is the last that is printed."""
    try:
        for uri, folder in zip(words[::2], words[1::2], strict=True):
            print(f"Fetching {uri}", flush=True)  # noqa: T201  the container's log
            Path(folder).mkdir(parents=True, exist_ok=True)
            fetch(uri, Path(folder))
    except (FetchError, OSError) as error:
        print(f"Failed to fetch model: {error}", flush=True)  # noqa: T201  the container's log
        return 1
    return 0


def fetch(uri: str, folder: Path) -> None:
    if uri.startswith("s3://"):
        _from_s3(uri, folder)
    elif uri.startswith("hf://"):
        _from_hub(uri, folder)
    elif uri.startswith("file://") or "://" not in uri:
        _link(uri, folder)
    else:
        raise FetchError(f"{uri} {_UNSUPPORTED}")


def _wanted(name: str) -> bool:
    allowed, ignored = _patterns("STORAGE_ALLOW_PATTERNS"), _patterns("STORAGE_IGNORE_PATTERNS")
    if allowed and not any(fnmatch.fnmatch(name, one) for one in allowed):
        return False
    return not any(fnmatch.fnmatch(name, one) for one in ignored)


def _patterns(variable: str) -> list[str]:
    """A JSON list, or words between commas."""
    text = os.environ.get(variable, "").strip()
    if text.startswith("["):
        return [str(one) for one in json.loads(text)]
    return [one.strip() for one in text.split(",") if one.strip()]


def _link(uri: str, folder: Path) -> None:
    """Nothing is copied: the model's files are linked to."""
    source = Path(uri.removeprefix("file://"))
    if not source.exists():
        raise FetchError(f"Local path {uri} does not exist.")
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    files = [one for one in files if _wanted(one.name)]
    if not files:
        raise FetchError(f"No model found in {uri}.")
    for one in files:
        link = folder / one.name
        if not link.exists():
            link.symlink_to(one)


def _from_s3(uri: str, folder: Path) -> None:
    import boto3  # The image has it, the control plane need not.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlparse(uri)
    prefix = place.path.lstrip("/")
    try:
        client = boto3.client("s3", **_s3_settings())
        objects = list(_objects(client, place.netloc, prefix))
        if not objects:
            raise FetchError(f"No model found in {uri}.")
        with ThreadPoolExecutor(int(os.environ.get("S3_MAX_FILE_CONCURRENCY", _FILES_AT_ONCE))) as pool:
            list(pool.map(lambda one: _download(client, place.netloc, one, folder), objects))
    except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:
        raise FetchError(f"{uri}: {error}") from error


def _s3_settings() -> dict[str, Any]:
    from botocore import UNSIGNED  # As above.
    from botocore.config import Config

    options: dict[str, Any] = {
        "connect_timeout": int(os.environ.get("S3_CONNECT_TIMEOUT", "15")),
        "read_timeout": int(os.environ.get("S3_READ_TIMEOUT", "30")),
        "retries": {"max_attempts": int(os.environ.get("S3_MAX_ATTEMPTS", "3")), "mode": "standard"},
    }
    if _is_set("awsAnonymousCredential"):
        options["signature_version"] = UNSIGNED
    addressing = {"addressing_style": "virtual"} if _is_set("S3_USER_VIRTUAL_BUCKET") else {}
    accelerating = {"use_accelerate_endpoint": True} if _is_set("S3_USE_ACCELERATE") else {}
    settings: dict[str, Any] = {"config": Config(**options, s3={**addressing, **accelerating} or None)}
    if os.environ.get("AWS_ENDPOINT_URL"):
        settings["endpoint_url"] = os.environ["AWS_ENDPOINT_URL"]
    if os.environ.get("S3_VERIFY_SSL", "").lower() in ("0", "false"):
        settings["verify"] = False
    return settings


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() == "true"


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Keys and the names they get below the folder; a prefix need not end a folder's name, as in KServe."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents") or ():
            key = one["Key"]
            if key.endswith("/") or not one["Size"]:
                continue
            if key == prefix:
                yield key, key.rpartition("/")[2]
                return
            name = key.removeprefix(prefix).lstrip("/")
            if _wanted(name):
                yield key, name


def _download(client: Any, bucket: str, found: tuple[str, str], folder: Path) -> None:
    key, name = found
    target = folder / name
    if folder.resolve() not in target.resolve().parents:
        raise FetchError(f"the object {key!r} would lie outside of its folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    client.download_file(bucket, key, str(target))


def _from_hub(uri: str, folder: Path) -> None:
    owner, _, model = uri.removeprefix("hf://").partition("/")
    name, _, revision = model.partition(":")
    if not owner or not name or "/" in model:
        raise FetchError(f"Invalid Hugging Face URI format. Expected 'hf://owner/model[:revision]', got '{uri}'")
    # The switch makes the client fail where the faster library is missing.
    os.environ.pop("HF_HUB_ENABLE_HF_TRANSFER", None)
    from huggingface_hub import snapshot_download  # The image has it, the control plane need not.

    try:
        snapshot_download(
            f"{owner}/{name}",
            revision=revision or None,
            local_dir=folder,
            allow_patterns=_patterns("STORAGE_ALLOW_PATTERNS") or None,
            ignore_patterns=_patterns("STORAGE_IGNORE_PATTERNS") or None,
        )
    except Exception as error:
        # The client raises errors of several libraries below it.
        raise FetchError(f"{uri}: {error}") from error


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock would still be held when the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
