"""Which version of a model or a data set lies at its address now, read where the task runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import SourceVersionError

if TYPE_CHECKING:
    from airflow_llmtune.resources.source import Source

__all__ = ["read_version"]

# Larger files are told apart by size and time: reading a model's weights would take longer than what it is to spare.
READ_BYTES = 8 * 1024 * 1024


def read_version(
    argument: str, source: Source, *, hub_conn_id: str | None = None, aws_conn_id: str | None = None
) -> str:
    """
    Return a text that changes when the source does; a SourceVersionError says why there is none.

    :param argument: ``model`` or ``dataset``.
    :param hub_conn_id: Airflow connection with the Hub's token as password, and its address as host if it is another.
    :param aws_conn_id: Airflow connection with key, secret, and ``region_name`` or ``endpoint_url`` in its extra;
        default: what boto3 finds by itself.
    """
    if source.claim is not None:
        raise SourceVersionError(f"the volume {source.claim} can be read in its pods only")
    if source.flag.startswith("hf://"):
        return _hub_version(argument, source, hub_conn_id)
    if source.flag.startswith("s3://"):
        return _s3_version(source.flag, aws_conn_id)
    return _local_version(Path(source.flag.removeprefix("file://")))


def _connection(conn_id: str) -> Any:
    from airflow.sdk import BaseHook  # Airflow's hooks are for tasks; the rest of this file works without

    return BaseHook.get_connection(conn_id)


def _hub_version(argument: str, source: Source, conn_id: str | None) -> str:
    try:
        # Imported here: the trainer's image has it, a worker may not.
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise SourceVersionError("the worker has no `huggingface_hub` to ask the Hub with") from error
    connection = None if conn_id is None else _connection(conn_id)
    api = HfApi(
        token=None if connection is None else connection.password, endpoint=connection.host if connection else None
    )
    name = source.flag.removeprefix("hf://")
    ask = api.model_info if argument == "model" else api.dataset_info
    try:
        sha = ask(name, revision=source.revision, timeout=30.0).sha
    except HFValidationError as error:
        raise SourceVersionError(f"the Hub knows no such name: {_first_line(error)}") from error
    except Exception as error:
        # An unreachable Hub is told by the HTTP library's own errors, and which library that is depends on the version.
        raise SourceVersionError(f"the Hub did not tell: {_first_line(error)}", transient=True) from error
    if not sha:
        raise SourceVersionError("the Hub told no commit")
    return f"hub:{sha}"


def _s3_version(uri: str, conn_id: str | None) -> str:
    try:
        # Imported here: it loads for long, and a site without S3 may not have it.
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise SourceVersionError("the worker has no `boto3` to ask S3 with") from error
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        pages = boto3.client("s3", **_s3_options(conn_id)).get_paginator("list_objects_v2")
        found = [
            (item["Key"], item["ETag"], item["Size"])
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", [])
            # `data` must not take in `data-old`.
            if not prefix or item["Key"] == prefix or item["Key"].startswith(f"{prefix.rstrip('/')}/")
        ]
    except (BotoCoreError, ClientError) as error:
        raise SourceVersionError(f"S3 did not tell: {_first_line(error)}", transient=True) from error
    except ValueError as error:  # boto3's word for an `endpoint_url` that is none
        raise SourceVersionError(f"S3 cannot be asked: {_first_line(error)}") from error
    if not found:
        raise SourceVersionError("there is no object below that address")
    return f"s3:{_digest(map(repr, sorted(found)))}"


def _s3_options(conn_id: str | None) -> dict[str, Any]:
    if conn_id is None:
        return {}
    connection = _connection(conn_id)
    extra = connection.extra_dejson
    given = {
        "aws_access_key_id": connection.login,
        "aws_secret_access_key": connection.password,
        **{key: extra.get(key) for key in ("aws_session_token", "region_name", "endpoint_url")},
    }
    return {key: value for key, value in given.items() if value}


def _local_version(path: Path) -> str:
    try:
        if not path.exists():
            raise SourceVersionError("there is no such path where the task runs; it may be one of the pods only")
        files = sorted(_files(path)) if path.is_dir() else [path]
        return f"files:{_digest(_describe(path, file) for file in files)}"
    except OSError as error:
        raise SourceVersionError(f"it cannot be read: {error.strerror}") from error


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _describe(root: Path, file: Path) -> str:
    status = file.stat()
    name = file.relative_to(root).as_posix()
    if status.st_size > READ_BYTES:
        return f"{name} {status.st_size} {status.st_mtime_ns}"
    return f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}"


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:32]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
