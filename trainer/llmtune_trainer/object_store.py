"""S3, and what speaks its protocol, through boto3. boto3 itself honours AWS_ENDPOINT_URL and the credential chain."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.object_checks import problem_of_file

MIB = 2**20
# Large parts for files of gigabytes, and as many at once as fill a fast network.
PART_BYTES = 32 * MIB
CONNECTIONS = 16
CREDENTIALS = "the AWS_* credentials in the Secret of the pod (the operators' `aws_conn_id`)"
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired"}
DENIED = {"400", "401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class Object:
    key: str
    name: str  # below the prefix
    size: int
    etag: str  # without quotes
    age: float  # seconds since it was written, by the store's own clock


def split_address(flag: str, address: str) -> tuple[str, str]:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise BadInputError(f"`{flag}`={address!r} names no bucket. Fix: write s3://bucket/prefix.")
    return bucket, prefix.strip("/")


def list_objects(flag: str, address: str) -> list[Object]:
    """Return what lies at the address: the objects below the prefix, or the one object."""
    bucket, prefix = split_address(flag, address)
    with explained(flag, address):
        found = _objects(connect(), bucket, prefix)
    if not found:
        raise BadInputError(f"`{flag}`={address!r} holds no object. Fix: correct the bucket or the prefix.")
    return found


def is_one_object(address: str, objects: Sequence[Object]) -> bool:
    return [obj.key for obj in objects] == [address.removeprefix("s3://").partition("/")[2].strip("/")]


def download_prefix(flag: str, address: str, target: Path) -> Path:
    """Return the local folder, or the local file when the address is that of one object."""
    objects = list_objects(flag, address)
    download(flag, address, objects, target)
    return target / objects[0].name if is_one_object(address, objects) else target


def download(flag: str, address: str, objects: Sequence[Object], target: Path) -> None:
    """Fill the folder with these objects and nothing else; whole files that are there already are kept."""
    bucket, _ = split_address(flag, address)
    target.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    files = {obj: _inside(target, obj.name) for obj in objects}
    for leftover in {path for path in target.rglob("*") if path.is_file()} - {*files.values()}:
        leftover.unlink()
    with explained(flag, address):
        client = connect()
        problems = _problems(client, bucket, files)
        for _ in range(2):
            if problems:
                _transfer(client, bucket, {obj: files[obj] for obj in problems})
                problems = _problems(client, bucket, {obj: files[obj] for obj in problems})
    if problems:
        told = ", ".join(f"{obj.name} {problem}" for obj, problem in problems.items())
        raise TrainerError(
            f"`{flag}`={address!r} was read twice and is damaged: {told}. Fix: run it again; when it stays so, "
            "store it again."
        )


def _problems(client: Any, bucket: str, files: Mapping[Object, Path]) -> dict[Object, str]:
    def problem_of(obj: Object) -> str | None:
        return problem_of_file(client, bucket, obj.key, obj.etag, obj.size, files[obj])

    with ThreadPoolExecutor(max_workers=4) as pool:
        return {obj: problem for obj, problem in zip(files, pool.map(problem_of, files), strict=True) if problem}


def _transfer(client: Any, bucket: str, files: dict[Object, Path]) -> None:
    from boto3.s3.transfer import TransferConfig
    from s3transfer.manager import TransferManager  # type: ignore[import-untyped]
    from s3transfer.subscribers import BaseSubscriber  # type: ignore[import-untyped]

    class Listed(BaseSubscriber):  # type: ignore[misc]
        """Spares a request for size and ETag, and has an object that changed meanwhile refused (If-Match)."""

        def __init__(self, obj: Object) -> None:
            self.obj = obj

        def on_queued(self, future: Any, **_: Any) -> None:
            future.meta.provide_transfer_size(self.obj.size)
            future.meta.provide_object_etag(f'"{self.obj.etag}"')

    # boto3's choice of a faster client ignores AWS_ENDPOINT_URL; this one does not.
    config = TransferConfig(
        multipart_threshold=2 * PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=CONNECTIONS
    )
    with TransferManager(client, config) as manager:
        transfers = []
        for obj, file in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            transfers.append(manager.download(bucket, obj.key, str(file), subscribers=[Listed(obj)]))
        for transfer in transfers:
            transfer.result()


def list_etags(flag: str, address: str) -> dict[str, str]:
    """Return the objects' names below the prefix, each with what S3 calls its content."""
    bucket, prefix = split_address(flag, address)
    with explained(flag, address):
        return {obj.name: obj.etag for obj in _objects(connect(), bucket, prefix)}


def read_named(flag: str, address: str, name: str) -> dict[str, str]:
    """Return folder -> text, for each folder directly below the address that holds an object of this name."""
    bucket, prefix = split_address(flag, address)
    with explained(flag, address):
        client = connect()
        paths = [PurePosixPath(obj.name) for obj in _objects(client, bucket, prefix)]
        folders = [path.parent.name for path in paths if len(path.parts) == 2 and path.name == name]
        return {
            folder: client.get_object(Bucket=bucket, Key=_key(prefix, f"{folder}/{name}"))["Body"].read().decode()
            for folder in folders
        }


def delete_folder(flag: str, address: str, first: str) -> None:
    """Delete the objects named ``first`` before all others: a folder half deleted must not look complete."""
    bucket, prefix = split_address(flag, address)
    with explained(flag, address):
        names = [obj.name for obj in _objects(connect(), bucket, prefix)]
    delete_objects(flag, address, names, first)


def delete_objects(flag: str, address: str, names: Iterable[str], first: str = "") -> None:
    """Delete these below the address, those named ``first`` before all others, else in this order."""
    bucket, prefix = split_address(flag, address)
    with explained(flag, address):
        client = connect()
        for name in sorted(names, key=lambda name: PurePosixPath(name).name != first):
            client.delete_object(Bucket=bucket, Key=_key(prefix, name))


def _objects(client: Any, bucket: str, prefix: str) -> list[Object]:
    """Return what lies below the prefix, or else the object of that very name."""
    # With the slash, as "data" would go through all of "data-old/" too.
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_key(prefix, ""))
    # A key that ends with a slash is a console's mark for a folder.
    below = [obj for page in pages for obj in _listed(page, prefix) if not obj.key.endswith("/")]
    if below or not prefix:
        return below
    first = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    return [obj for obj in _listed(first, prefix) if obj.key == prefix]


def _listed(page: Mapping[str, Any], prefix: str) -> Iterator[Object]:
    for item in page.get("Contents", []):
        key, etag = item["Key"], item["ETag"].strip('"')
        yield Object(key, _relative(key, prefix), item["Size"], etag, _age(page, item["LastModified"]))


def _age(answer: Mapping[str, Any], written: datetime) -> float:
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return ((parsedate_to_datetime(told) if told else datetime.now(UTC)) - written).total_seconds()


def _relative(key: str, prefix: str) -> str:
    return PurePosixPath(key).name if key == prefix else key[len(prefix) :].lstrip("/")


def upload_folder(flag: str, folder: Path, address: str, last: str | None = None, gone: Sequence[str] = ()) -> None:
    """Upload the file named ``last`` after all others: who sees it sees a complete result.

    :param gone: of the result before, names below the address that are deleted once it is no longer complete.
    """
    bucket, prefix = split_address(flag, address)
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == last, file))
    delete_objects(flag, address, [name for name in (last, *gone) if name is not None])
    with explained(flag, address):
        client = connect()
        for file in files:
            client.upload_file(str(file), bucket, _key(prefix, file.relative_to(folder).as_posix()))


class Content(NamedTuple):
    text: str
    etag: str
    age: float  # as an object's


def read_object(flag: str, address: str) -> Content | None:
    from botocore.exceptions import ClientError

    bucket, key = split_address(flag, address)
    with explained(flag, address):
        try:
            answer = connect().get_object(Bucket=bucket, Key=key)
            text = answer["Body"].read().decode(errors="replace")  # what is torn is for its reader to judge
            return Content(text, answer["ETag"], _age(answer, answer["LastModified"]))
        except ClientError as error:
            if error.response["Error"].get("Code") != "NoSuchKey":
                raise
            return None


def write_object(
    flag: str, address: str, text: str, *, only_first: bool = False, only_over: str | None = None
) -> str | None:
    """Return the ETag, or None when there is one already, or not the one that it was to replace."""
    from botocore.exceptions import ClientError

    bucket, key = split_address(flag, address)
    condition = {"IfNoneMatch": "*"} if only_first else {"IfMatch": only_over} if only_over else {}
    with explained(flag, address):
        try:
            return str(connect().put_object(Bucket=bucket, Key=key, Body=text.encode(), **condition)["ETag"])
        except ClientError as error:
            code = error.response["Error"].get("Code")
            if condition and code == "NotImplemented":  # a store that knows no conditions
                return write_object(flag, address, text)
            if condition and code in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                return None
            raise


def check_writable(flag: str, address: str) -> None:
    """Ask before hours of training whether its result can be stored."""
    bucket, prefix = split_address(flag, address)
    if not prefix:
        raise BadInputError(f"`{flag}`={address!r} names no prefix. Fix: write s3://bucket/prefix.")
    with explained(flag, address):
        connect().head_bucket(Bucket=bucket)


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _inside(target: Path, relative: str) -> Path:
    file = (target / relative).resolve()
    if not file.is_relative_to(target):
        raise BadInputError(f"The object key {relative!r} leads out of its prefix. Fix: rename the object.")
    return file


def connect() -> Any:
    return _connect(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=1)
def _connect(_: tuple[tuple[str, str], ...]) -> Any:
    """Each client costs a quarter of a second; runs without S3 do not even pay the import."""
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
            max_pool_connections=2 * CONNECTIONS,
            tcp_keepalive=True,
            **(compatible if own_endpoint else {}),
        ),
    )


@contextmanager
def explained(flag: str, address: str) -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError  # type: ignore[import-untyped]

    prefix = f"`{flag}`={address!r}"
    try:
        yield
    except NoCredentialsError as error:
        raise BadInputError(
            f"{prefix} needs credentials and there are none. Fix: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "from a Secret (the operators do that with `aws_conn_id`), or give the pod a role."
        ) from error
    except EndpointConnectionError as error:
        raise BadInputError(
            f"{prefix} cannot be reached: {error} Fix: correct AWS_ENDPOINT_URL or the network."
        ) from error
    except ClientError as error:
        raise BadInputError(f"{prefix} was refused: {_client_error(error.response['Error'])}") from error
    except S3DownloadFailedError as error:
        raise BadInputError(f"{prefix} was refused: {_client_error({'Code': 'PreconditionFailed'})}") from error
    except S3UploadFailedError as error:  # hides what was answered
        answer = getattr(error.__context__, "response", {}).get("Error", {"Message": str(error)})
        raise BadInputError(f"{prefix} was refused: {_client_error(answer)}") from error
    except RetriesExceededError as error:
        raise TrainerError(f"{prefix} could not be read to the end: {error}. Fix: run it again.") from error
    except BotoCoreError as error:
        raise BadInputError(f"{prefix} cannot be used: {error}. Fix: check the address and AWS_* variables.") from error


def _client_error(error: dict[str, str]) -> str:
    code = error.get("Code", "?")
    if code in {"NoSuchBucket", "404"}:
        return "there is no such bucket. Fix: correct its name, or create it."
    if code in {"NoSuchKey", "PreconditionFailed", "412"}:
        return f"{code}: an object was changed or deleted while it was read. Fix: run it again."
    if code in EXPIRED:
        return f"{code}: the credentials are no longer valid. Fix: renew {CREDENTIALS}."
    if code in DENIED:
        return f"{code}. Fix: correct {CREDENTIALS}, or allow them to use this prefix."
    return f"{code}: {error.get('Message', '')}. Fix: check the address and the store."
