"""The Hugging Face Hub, through its own client, which honours HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and HF_HOME.

A revision is asked for its commit once, and everything after that is of that commit. What the client's own cache
already holds whole is used where it lies; all else goes into the run's cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune_trainer.cache import Cache
from llmtune_trainer.cache_entry import DamagedError, remove
from llmtune_trainer.errors import BadInputError

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

COMMIT = re.compile(r"[0-9a-f]{40}")
# Weights in formats that are not trained from would multiply the download.
UNUSED_MODEL_FILES = ("*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pt", "*.pth", "original/*", "onnx/*")
# The same weights as the safetensors beside them.
PICKLED = "pytorch_model*.bin*"
TOKEN = "HF_TOKEN from a Secret (the operators do that with `hub_conn_id`)"  # noqa: S105  the name of one


@dataclass(frozen=True)
class Repository:
    said: str  # `--flag`='value', for errors
    kind: str  # model, dataset, adapter
    name: str
    revision: str | None

    @property
    def type(self) -> str:
        return "dataset" if self.kind == "dataset" else "model"

    @property
    def unused(self) -> list[str] | None:
        return list(UNUSED_MODEL_FILES) if self.kind == "model" else None


def fetch_repository(repository: Repository, cache: Cache) -> tuple[Path, str]:
    """Return the folder and its commit."""
    with _explained(repository):
        commit = _commit_of(repository, cache)
        if (folder := _in_own_cache(repository, commit)) is not None:
            return folder, commit
        key = {"hub": repository.name, "type": repository.type, "commit": commit, "without": repository.unused}

        def build(folder: Path) -> Mapping[str, str]:
            return _download(repository, commit, folder, cache)

        return cache.get(repository.kind, key, build), commit


def _commit_of(repository: Repository, cache: Cache) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    if repository.revision and COMMIT.fullmatch(repository.revision):
        return repository.revision
    about = {"hub": repository.name, "type": repository.type, "revision": repository.revision}
    try:
        found = (
            HfApi().resolve_revision(repository.name, repo_type=repository.type, revision=repository.revision).resolved
        )
    except RevisionResolutionError:
        # Not reachable, and the client's own cache does not know it either.
        if (known := cache.read_note(about)) is None:
            raise
        cache.say(f"The Hub cannot be reached; {repository.name} is taken at {known}, as it was told last.")
        return known
    if cache.read_note(about) != found:
        cache.write_note(about, found)
    return str(found)


def _in_own_cache(repository: Repository, commit: str) -> Path | None:
    """Return the snapshot when it is known to be whole, or when the Hub cannot be asked for more."""
    from huggingface_hub import constants, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    named: dict[str, Any] = {"repo_type": repository.type, "revision": commit}
    try:
        if not constants.is_offline_mode():
            get_cached_repo_tree(repository.name, **named)
        return Path(
            snapshot_download(repository.name, **named, ignore_patterns=repository.unused, local_files_only=True)
        )
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None


def _download(repository: Repository, commit: str, folder: Path, cache: Cache) -> dict[str, str]:
    """Fill the folder; files that a predecessor completed are kept. Return the sha256 of large files."""
    from huggingface_hub import snapshot_download

    files, unused = _wanted(repository, commit)
    own = folder / ".cache"
    for broken_off in own.rglob("*.incomplete"):
        broken_off.unlink()
    cache.make_room(folder, sum(file.size for file in files))
    snapshot_download(
        repository.name,
        repo_type=repository.type,
        revision=commit,
        local_dir=folder,
        ignore_patterns=unused,
    )
    remove(own)
    wrong = [file for file in files if _size(folder / file.path) != file.size]
    for file in wrong:
        (folder / file.path).unlink(missing_ok=True)
    if wrong:
        names = ", ".join(file.path for file in wrong)
        raise DamagedError(
            f"{repository.said} came with {names} of another size than the Hub gives. Fix: run it again."
        )
    return {file.path: file.lfs.sha256 for file in files if file.lfs is not None}


def _wanted(repository: Repository, commit: str) -> tuple[list[RepoFile], list[str]]:
    """Return the files, and the patterns of the others."""
    from huggingface_hub import HfApi, RepoFile

    listed = HfApi().list_repo_tree(repository.name, repo_type=repository.type, revision=commit, recursive=True)
    files = [file for file in listed if isinstance(file, RepoFile)]
    unused = list(repository.unused or ())
    if unused and any(file.path.endswith(".safetensors") and "/" not in file.path for file in files):
        unused.append(PICKLED)
    return [file for file in files if not any(fnmatch(file.path, pattern) for pattern in unused)], unused


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionResolutionError

    # Of whichever HTTP library this client uses.
    http_error: Any = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (http_error, HFValidationError, RevisionResolutionError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # of this machine, not of the Hub
        raise BadInputError(f"{repository.said} {_problem(error, repository.revision)}") from error


def _problem(error: Exception, revision: str | None) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the client says only that it found nothing
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return (
            f"is a gated repository on the Hugging Face Hub. Fix: accept its terms there, and set {TOKEN} "
            "to a token of that account."
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            "is neither a local path nor a repository on the Hugging Face Hub that this token can see. "
            f"Fix: correct the name, or, for a private repository, set {TOKEN}."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r}. Fix: correct the revision."
    if status in {401, 403}:
        return (
            f"was refused by the Hugging Face Hub ({status}): the token is wrong, has expired, or may not read it. "
            f"Fix: set {TOKEN} to a valid one."
        )
    return (
        "is no local path, and the Hugging Face Hub could not be reached for it "
        f"({type(error).__name__}: {_shortened(error)}). Fix: give the path of a folder or s3://bucket/prefix, or open "
        "the network to the Hub (HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses only what is cached)."
    )


def _shortened(error: Exception) -> str:
    """Without the queries of addresses: a signed one is as good as a token."""
    return re.sub(r"\?\S+", "", " ".join(str(error).split()))[:200]
