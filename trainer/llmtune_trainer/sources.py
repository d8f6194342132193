"""Where model and data come from: a local path, the Hugging Face Hub or S3; each ends as a local path.

Local paths are used where they lie. All else comes through the cache, under what it is: the Hub's commit or S3's ETags.
Credentials come from the environment only (AWS_*, HF_TOKEN), never from a flag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmtune_trainer.addresses import hub_name, local_path
from llmtune_trainer.cache import Cache
from llmtune_trainer.cache_entry import sha256_of
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.hub import Repository, fetch_repository
from llmtune_trainer.object_store import download, is_one_object, list_objects
from llmtune_trainer.settings import Settings

Role = Literal["model", "dataset", "adapter"]
FLAGS: dict[Role, str] = {"model": "--model_name_or_path", "dataset": "--dataset_name", "adapter": "--adapter"}
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Fetched:
    path: Path
    version: str  # another one when the content is another
    revision: str | None = None  # the commit, of what came from the Hub


def fetch_model(settings: Settings, cache: Cache) -> Fetched:
    source = settings.model_name_or_path
    if (path := find_local("model", source)) is not None:
        check_model_folder(source, path)  # before all of it is read for its version
    fetched = fetch("model", source, settings.model_revision, cache)
    if path is None:
        check_model_folder(source, fetched.path)
    return fetched


def fetch_dataset(settings: Settings, cache: Cache) -> Fetched:
    return fetch("dataset", settings.dataset_name, None, cache)


def fetch_adapter(settings: Settings, cache: Cache) -> Fetched:
    """Fetch what was trained: an adapter, or a whole model."""
    source = settings.adapter or ""
    fetched = fetch("adapter", source, None, cache)
    if is_whole_model(fetched.path):
        return fetched
    names = ("adapter_config.json", "adapter_model.safetensors")
    if missing := [name for name in names if not (fetched.path / name).is_file()]:
        raise BadInputError(
            f"`{FLAGS['adapter']}`={source!r} has no {', no '.join(missing)}. "
            "Fix: give the folder of a complete adapter, or of a model that was trained as a whole."
        )
    return fetched


def is_whole_model(folder: Path) -> bool:
    return not (folder / "adapter_config.json").is_file() and _model_problem(folder) is None


def fetch(role: Role, source: str, revision: str | None, cache: Cache) -> Fetched:
    if source.startswith("s3://"):
        return _from_s3(role, source, cache)
    if (path := find_local(role, source)) is not None:
        return Fetched(path, _version_of(path, cache))
    return _from_hub(role, source, revision, cache)


def find_local(role: Role, source: str) -> Path | None:
    """Return the path, or None when it lies in S3 or on the Hub."""
    if source.startswith(("hf://", "s3://")):
        return None
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
    return None


def _from_s3(role: Role, source: str, cache: Cache) -> Fetched:
    flag = FLAGS[role]
    objects = list_objects(flag, source)
    listing = _digest_of({obj.key: f"{obj.etag} {obj.size}" for obj in objects})

    def build(folder: Path) -> None:
        cache.make_room(folder, sum(obj.size for obj in objects))
        download(flag, source, objects, folder)

    folder = cache.get(role, {"s3": source.rstrip("/"), "objects": listing}, build)
    path = folder / objects[0].name if is_one_object(source, objects) else folder
    return Fetched(path, _digest_of({obj.name: obj.etag for obj in objects}))


def _from_hub(role: Role, source: str, revision: str | None, cache: Cache) -> Fetched:
    name, named = hub_name(source)
    said = f"`{FLAGS[role]}`={source!r}"
    if named and revision and named != revision:
        raise BadInputError(
            f"{said} names another revision than `--model_revision`={revision!r}. Fix: give one of the two."
        )
    folder, commit = fetch_repository(Repository(said, role, name, named or revision), cache)
    return Fetched(folder, commit, commit)


def _version_of(path: Path, cache: Cache) -> str:
    """Return a digest over all that is there. It is remembered, as reading gigabytes takes long."""
    files = {path.name: path} if path.is_file() else _files_below(path)
    statuses = {name: file.stat() for name, file in files.items()}
    about = {
        "path": str(path.resolve()),
        "files": _digest_of({name: f"{status.st_size} {status.st_mtime_ns}" for name, status in statuses.items()}),
    }
    known = cache.read_note(about)
    if known is None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            known = _digest_of(dict(zip(files, pool.map(sha256_of, files.values()), strict=True)))
        cache.write_note(about, known)
    return known


def _files_below(folder: Path) -> dict[str, Path]:
    files = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    return {
        name.as_posix(): file for name, file in files.items() if not any(part.startswith(".") for part in name.parts)
    }


def _digest_of(contents: Mapping[str, str]) -> str:
    text = "".join(f"{name}\t{content}\n" for name, content in sorted(contents.items()))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _nearest_folder(path: Path) -> str:
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:8]
    return f" ({parent} holds {', '.join(names)})" if names else f" ({parent} is empty)"


def check_model_folder(source: str, folder: Path) -> None:
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
