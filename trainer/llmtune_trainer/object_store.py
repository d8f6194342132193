"""S3, and what speaks its protocol, through boto3. boto3 itself honours AWS_ENDPOINT_URL and the credential chain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from llmtune_trainer.errors import BadInputError


def split_address(flag: str, address: str) -> tuple[str, str]:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise BadInputError(f"`{flag}`={address!r} names no bucket. Fix: write s3://bucket/prefix.")
    return bucket, prefix.strip("/")


def download_prefix(flag: str, address: str, target: Path) -> Path:
    """Return the local folder, or the local file when the address is that of one object."""
    bucket, prefix = split_address(flag, address)
    with _explained(flag, address):
        client = _client()
        found = _objects(client, bucket, prefix)
        if not found:
            raise BadInputError(f"`{flag}`={address!r} holds no object. Fix: correct the bucket or the prefix.")
        target.mkdir(parents=True, exist_ok=True)
        for obj in found:
            file = _inside(target, _relative(obj["Key"], prefix))
            # Another process of this run on this node may have been here first.
            if not file.is_file() or file.stat().st_size != obj["Size"]:
                file.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, obj["Key"], str(file))
    return target / PurePosixPath(prefix).name if [obj["Key"] for obj in found] == [prefix] else target


def list_etags(flag: str, address: str) -> dict[str, str]:
    """Return the objects' names below the prefix, each with what S3 calls its content."""
    bucket, prefix = split_address(flag, address)
    with _explained(flag, address):
        return {_relative(obj["Key"], prefix): obj["ETag"].strip('"') for obj in _objects(_client(), bucket, prefix)}


def read_named(flag: str, address: str, name: str) -> dict[str, str]:
    """Return folder -> text, for each folder directly below the address that holds an object of this name."""
    bucket, prefix = split_address(flag, address)
    with _explained(flag, address):
        client = _client()
        names = [_relative(obj["Key"], prefix) for obj in _objects(client, bucket, prefix)]
        folders = [path.parent.name for path in map(PurePosixPath, names) if len(path.parts) == 2 and path.name == name]
        return {
            folder: client.get_object(Bucket=bucket, Key=_key(prefix, f"{folder}/{name}"))["Body"].read().decode()
            for folder in folders
        }


def delete_folder(flag: str, address: str, first: str) -> None:
    """Delete the objects named ``first`` before all others: a folder half deleted must not look complete."""
    bucket, prefix = split_address(flag, address)
    with _explained(flag, address):
        client = _client()
        keys = [obj["Key"] for obj in _objects(client, bucket, prefix)]
        for key in sorted(keys, key=lambda key: PurePosixPath(key).name != first):
            client.delete_object(Bucket=bucket, Key=key)


def _objects(client: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    return [
        obj
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for obj in page.get("Contents", [])
        # "data" must not match "data-old/", and a key that ends with "/" is a console's mark for a folder.
        if not obj["Key"].endswith("/") and (not prefix or obj["Key"] == prefix or obj["Key"].startswith(prefix + "/"))
    ]


def _relative(key: str, prefix: str) -> str:
    return PurePosixPath(key).name if key == prefix else key[len(prefix) :].lstrip("/")


def upload_folder(flag: str, folder: Path, address: str, last: str) -> None:
    """Upload the file named ``last`` after all others: who sees it sees a complete result."""
    bucket, prefix = split_address(flag, address)
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == last, file))
    with _explained(flag, address):
        client = _client()
        client.delete_object(Bucket=bucket, Key=_key(prefix, last))
        for file in files:
            client.upload_file(str(file), bucket, _key(prefix, file.relative_to(folder).as_posix()))


def check_writable(flag: str, address: str) -> None:
    """Ask before hours of training whether its result can be stored."""
    bucket, prefix = split_address(flag, address)
    if not prefix:
        raise BadInputError(f"`{flag}`={address!r} names no prefix. Fix: write s3://bucket/prefix.")
    with _explained(flag, address):
        _client().head_bucket(Bucket=bucket)


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _inside(target: Path, relative: str) -> Path:
    file = (target / relative).resolve()
    if not file.is_relative_to(target.resolve()):
        raise BadInputError(f"The object key {relative!r} leads out of its prefix. Fix: rename the object.")
    return file


def _client() -> Any:
    # A quarter of a second that runs without S3 do not pay.
    import boto3
    from botocore.config import Config

    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # Stores other than AWS often know neither bucket host names nor the newer checksum headers.
    compatible: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    return boto3.Session().client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            **(compatible if own_endpoint else {}),
        ),
    )


@contextmanager
def _explained(flag: str, address: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

    prefix = f"`{flag}`={address!r}"
    try:
        yield
    except NoCredentialsError as error:
        raise BadInputError(
            f"{prefix} needs credentials and there are none. Fix: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "from a Secret, or give the pod a role."
        ) from error
    except EndpointConnectionError as error:
        raise BadInputError(
            f"{prefix} cannot be reached: {error} Fix: correct AWS_ENDPOINT_URL or the network."
        ) from error
    except ClientError as error:
        raise BadInputError(f"{prefix} was refused: {_client_error(error.response['Error'])}") from error
    except BotoCoreError as error:
        raise BadInputError(f"{prefix} cannot be used: {error}. Fix: check the address and AWS_* variables.") from error


def _client_error(error: dict[str, str]) -> str:
    code = error.get("Code", "?")
    if code in {"NoSuchBucket", "404"}:
        return "there is no such bucket. Fix: correct its name, or create it."
    if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}:
        return f"{code}. Fix: correct the AWS_* credentials, or allow them to use this prefix."
    return f"{code}: {error.get('Message', '')}. Fix: check the address and the store."
