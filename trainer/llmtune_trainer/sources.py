"""Where model and data come from: a local path, the Hugging Face Hub or S3; each ends as a local path.

Credentials come from the environment only (AWS_*, HF_TOKEN), never from a flag. Nothing is cached here beyond
what the Hub's own client caches: an S3 prefix is downloaded into the run's workspace.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.object_store import download_prefix, list_etags

Role = Literal["model", "dataset", "adapter"]
FLAGS: dict[Role, str] = {"model": "--model_name_or_path", "dataset": "--dataset_name", "adapter": "--adapter"}
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# Weights in formats that are not trained from would multiply the download.
UNUSED_MODEL_FILES = ("*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pt", "*.pth", "original/*", "onnx/*")


def fetch_model(source: str, revision: str | None, workspace: Path) -> Path:
    folder = _fetch("model", source, revision, workspace)
    _check_model_folder(source, folder)
    return folder


def fetch_dataset(source: str, workspace: Path) -> Path:
    return _fetch("dataset", source, None, workspace)


def fetch_adapter(source: str, workspace: Path) -> Path:
    folder = _fetch("adapter", source, None, workspace)
    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise BadInputError(
            f"`{FLAGS['adapter']}`={source!r} has no {', no '.join(missing)}. "
            "Fix: give the folder of a complete adapter."
        )
    return folder


def hub_commit(folder: Path) -> str | None:
    """Return the commit of what came from the Hub."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def model_version(folder: Path) -> str:
    """Return what changes when the model changes, wherever it lies: its commit, else a digest of names and sizes."""
    sizes = {file.relative_to(folder): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return hub_commit(folder) or _digest_of_listing({str(name): str(size) for name, size in sizes.items()})


def dataset_version(source: str, location: Path) -> str:
    """Return what changes when the data changes: the Hub's commit, else a digest over S3's ETags or over the files."""
    if commit := hub_commit(location):
        return commit
    if source.startswith("s3://"):
        contents = list_etags(FLAGS["dataset"], source)
    elif location.is_file():
        contents = {location.name: _digest_of(location)}
    else:
        files = {file.relative_to(location): file for file in location.rglob("*") if file.is_file()}
        contents = {
            name.as_posix(): _digest_of(file)
            for name, file in files.items()
            if not any(part.startswith(".") for part in name.parts)
        }
    return _digest_of_listing(contents)


def _digest_of_listing(contents: Mapping[str, str]) -> str:
    text = "".join(f"{name}\t{content}\n" for name, content in sorted(contents.items()))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def public_name(source: str) -> str:
    """Return how others load the same model: an absolute path, a Hub id or the S3 address."""
    if source.startswith("s3://"):
        return source
    path = local_path(source)
    if path is not None and path.exists():
        return str(path.resolve())
    return source.removeprefix("hf://")


def local_path(source: str) -> Path | None:
    """Return None for what lies elsewhere."""
    if source.startswith("file://"):
        return Path("/" + source.removeprefix("file://").lstrip("/"))
    return None if "://" in source else Path(source).expanduser()


def _fetch(role: Role, source: str, revision: str | None, workspace: Path) -> Path:
    if source.startswith("s3://"):
        return download_prefix(FLAGS[role], source, workspace / role)
    if source.startswith("hf://"):
        return _from_hub(role, source.removeprefix("hf://").removeprefix("datasets/"), revision, source)
    path = local_path(source)
    if path is None:
        raise BadInputError(
            f"`{FLAGS[role]}`={source!r} has an unknown scheme. Fix: give a path, hf://org/name or s3://bucket/prefix."
        )
    if path.exists():
        return path
    if source.startswith(("/", ".", "~", "file://")) or source.count("/") > 1:
        raise BadInputError(
            f"`{FLAGS[role]}`={source!r} does not exist{_nearest_folder(path)}. "
            "Fix: correct the path, or mount the volume that holds it."
        )
    return _from_hub(role, source, revision, source)


def _nearest_folder(path: Path) -> str:
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:8]
    return f" ({parent} holds {', '.join(names)})" if names else f" ({parent} is empty)"


def _from_hub(role: Role, name: str, revision: str | None, source: str) -> Path:
    # A third of a second and a network stack that local paths do not need.
    from huggingface_hub import snapshot_download

    unused = list(UNUSED_MODEL_FILES) if role == "model" else None
    repo_type = "dataset" if role == "dataset" else "model"
    try:
        return Path(snapshot_download(name, repo_type=repo_type, revision=revision, ignore_patterns=unused))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInputError(f"`{FLAGS[role]}`={source!r} {_hub_problem(error, revision)}") from error


def _hub_problem(error: Exception, revision: str | None) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return (
            "is a gated repository on the Hugging Face Hub. Fix: accept its terms there, and set HF_TOKEN from "
            "a Secret to a token of that account."
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            "is neither a local path nor a repository on the Hugging Face Hub that this token can see. "
            "Fix: correct the name, or, for a private repository, set HF_TOKEN from a Secret."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r}. Fix: correct --model_revision."
    reason = " ".join(str(error).split())[:200]
    return (
        "is no local path, and the Hugging Face Hub could not be reached for it "
        f"({type(error).__name__}: {reason}). Fix: give the path of a folder or s3://bucket/prefix, or open "
        "the network to the Hub (HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses only what is cached)."
    )


def _check_model_folder(source: str, folder: Path) -> None:
    problem = _model_problem(folder)
    if problem:
        raise BadInputError(f"`{FLAGS['model']}`={source!r} {problem}")


def _model_problem(folder: Path) -> str | None:
    if folder.suffix == ".gguf" or (folder.is_dir() and any(folder.glob("*.gguf")) and not _has_weights(folder)):
        return (
            "holds only GGUF weights, which are quantised for inference. Fix: convert them once to a folder: "
            "load them with AutoModelForCausalLM.from_pretrained(folder, gguf_file=...), drop "
            "config.quantization_config, and save_pretrained() a model of the same configuration with these "
            "weights, and the tokenizer."
        )
    if not folder.is_dir():
        return "is a file. Fix: give the folder that holds config.json, the weights and the tokenizer."
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        return f"is an adapter, not a model. Fix: give its base model, {base!r}."
    missing = [
        what
        for what, present in (
            ("config.json", (folder / "config.json").is_file()),
            ("weights (*.safetensors)", _has_weights(folder)),
            ("a tokenizer (tokenizer.json)", _has_tokenizer(folder)),
        )
        if not present
    ]
    return f"has no {', no '.join(missing)}. Fix: give a complete Hugging Face model folder." if missing else None


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in WEIGHTS)


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
    return any((folder / name).is_file() for name in names)
