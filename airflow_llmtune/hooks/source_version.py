"""Which version of a model or a data set lies at its address now, read where the task runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_llmtune.exceptions import SourceVersionError
from airflow_llmtune.resources.redaction import redacted

if TYPE_CHECKING:
    from airflow_llmtune.resources.credentials import Credentials
    from airflow_llmtune.resources.source import Source

__all__ = ["read_version"]

# Larger files are told apart by size and time: reading a model's weights would take longer than what it is to spare.
READ_BYTES = 8 * 1024 * 1024
# What the pods are told by the environment, in boto3's words.
_S3_OPTIONS = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "region_name": "AWS_DEFAULT_REGION",
    "endpoint_url": "AWS_ENDPOINT_URL",
}


def read_version(argument: str, source: Source, credentials: Credentials) -> str:
    """
    Return a text that changes when the source does; a SourceVersionError says why there is none.

    :param argument: ``model`` or ``dataset``.
    :param credentials: for the Hub or S3; without any, what ``huggingface_hub`` or ``boto3`` find by themselves.
    """
    if source.claim is not None:
        raise SourceVersionError(f"the volume {source.claim} can be read in its pods only")
    if source.flag.startswith("hf://"):
        return _hub_version(argument, source, credentials)
    if source.flag.startswith("s3://"):
        return _s3_version(source.flag, credentials)
    return _local_version(Path(source.flag.removeprefix("file://")))


def _hub_version(argument: str, source: Source, credentials: Credentials) -> str:
    try:
        # Imported here: the trainer's image has it, a worker may not.
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise SourceVersionError("the worker has no `huggingface_hub` to ask the Hub with") from error
    api = HfApi(token=credentials.values.get("HF_TOKEN"), endpoint=credentials.values.get("HF_ENDPOINT"))
    name = source.flag.removeprefix("hf://")
    ask = api.model_info if argument == "model" else api.dataset_info
    try:
        sha = ask(name, revision=source.revision, timeout=30.0).sha
    except HFValidationError as error:
        raise SourceVersionError(f"the Hub knows no such name: {_told(error, credentials)}") from None
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        # An unreachable Hub is told by the HTTP library's own errors, and which library that is depends on the version.
        raise SourceVersionError(f"the Hub did not tell: {_told(error, credentials)}", transient=True) from None
    if not sha:
        raise SourceVersionError("the Hub told no commit")
    return f"hub:{sha}"


def _s3_version(uri: str, credentials: Credentials) -> str:
    try:
        # Imported here: it loads for long, and a site without S3 may not have it.
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise SourceVersionError("the worker has no `boto3` to ask S3 with") from error
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        pages = boto3.client("s3", **_s3_options(credentials)).get_paginator("list_objects_v2")
        found = [
            (item["Key"], item["ETag"], item["Size"])
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", [])
            # `data` must not take in `data-old`.
            if not prefix or item["Key"] == prefix or item["Key"].startswith(f"{prefix.rstrip('/')}/")
        ]
    except (BotoCoreError, ClientError) as error:
        raise SourceVersionError(f"S3 did not tell: {_told(error, credentials)}", transient=True) from None
    except ValueError as error:  # boto3's word for an `endpoint_url` that is none
        raise SourceVersionError(f"S3 cannot be asked: {_told(error, credentials)}") from None
    if not found:
        raise SourceVersionError("there is no object below that address")
    return f"s3:{_digest(map(repr, sorted(found)))}"


def _s3_options(credentials: Credentials) -> dict[str, str]:
    values = credentials.values
    return {option: values[name] for option, name in _S3_OPTIONS.items() if name in values}


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


def _told(error: Exception, credentials: Credentials) -> str:
    """
    Say it without a secret.

    The libraries quote addresses, and what a server answers. So who raises this cuts the chain of errors: each of them
    would stand in the traceback.
    """
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return redacted(first, credentials.secrets.values())
