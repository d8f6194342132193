"""What a run leaves: a summary for whoever reads the pod, and what was trained, with the full result beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llmtune_trainer.addresses import local_path
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.object_store import check_writable, read_object, upload_folder

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
# Kubernetes keeps no more of a container's termination message.
TERMINATION_LIMIT = 4096
TERMINATION_LOG = Path("/dev/termination-log")


def summary(
    metrics: Mapping[str, float],
    artifact_uri: str | None,
    samples: Mapping[str, str] | None,
    manifest: Mapping[str, Any],
    *,
    diverged: bool,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "succeeded",
        "metrics": dict(metrics),
        "artifact_uri": artifact_uri,
        "samples": dict(samples) if samples else None,
        "diverged": diverged,
        "manifest": dict(manifest),
    }


def failure(error: str) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "status": "failed", "error": error}


def write_termination_log(
    content: Mapping[str, Any], environ: Mapping[str, str], *, keep_earlier: bool = False
) -> None:
    named = environ.get("LLMTUNE_TERMINATION_LOG")
    file = Path(named) if named else TERMINATION_LOG
    if keep_earlier and file.is_file() and file.stat().st_size:
        return
    if named or os.access(file, os.W_OK):
        file.write_text(fitted(content, TERMINATION_LIMIT), encoding="utf-8")


def fitted(content: Mapping[str, Any], limit: int) -> str:
    """Return JSON of at most ``limit`` bytes; when it is too long, its texts are cut, never its numbers.

    First those that are there to be looked at; what others compute with only when nothing else is left.
    """
    text = json.dumps(content, ensure_ascii=False)
    longest_texts = (2000, 1000, 500, 250, 100, 30)
    for keys in ({"samples", "error"}, set(content)):
        for longest in longest_texts:
            if len(text.encode()) <= limit:
                return text
            content = {key: _cut(item, longest) if key in keys else item for key, item in content.items()}
            text = json.dumps(content, ensure_ascii=False)
    return text


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, longest) for item in value[:longest]]
    if isinstance(value, str) and len(value) > longest:
        return value[: longest - 1] + "…"
    return value


def check_destination(flag: str, address: str) -> None:
    """Find out before training that its result could not be stored."""
    if address.startswith("s3://"):
        check_writable(flag, address)
        return
    folder = local_path(address)
    if folder is None:
        raise BadInputError(f"`{flag}`={address!r} cannot be written to. Fix: give a folder or s3://bucket/prefix.")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInputError(
            f"`{flag}`={address!r} cannot be written to: {existing} is no folder this user may write in. "
            "Fix: name another folder, or mount a writable volume there."
        )


def address_of(address: str) -> str:
    folder = local_path(address)
    return address.rstrip("/") if folder is None else str(folder.absolute())


def store(
    flag: str,
    address: str,
    save: Callable[[Path], None],
    content: Mapping[str, Any],
    workspace: Path,
    mark: str = RESULT_FILE,
) -> None:
    """Store what ``save`` writes, instead of what was stored there before.

    A folder with the file ``mark`` is complete: it comes last. It lists the files that came with it, so that the next
    result removes those that it does not replace, and no others.
    """
    folder = local_path(address)
    if folder is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the destination, so that moving is renaming; inside it when it exists: it may be a mounted volume.
    beside = workspace if folder is None else folder if folder.exists() else folder.parent
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=beside))
    try:
        unfinished.chmod(0o755)
        save(unfinished)
        files = sorted(file.relative_to(unfinished).as_posix() for file in unfinished.rglob("*") if file.is_file())
        listed = {**content, "files": files}
        (unfinished / mark).write_text(json.dumps(listed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder is None:
            gone = _gone(_read_object(flag, f"{address.rstrip('/')}/{mark}"), files)
            upload_folder(flag, unfinished, address, mark, gone)
        elif folder.exists():
            _move_into(folder, unfinished, mark, _gone(_read_file(folder / mark), files))
        else:
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into(folder: Path, unfinished: Path, mark: str, gone: Sequence[str]) -> None:
    (folder / mark).unlink(missing_ok=True)
    for name in gone:
        _remove(folder, folder / name)
    for entry in sorted(unfinished.iterdir(), key=lambda entry: entry.name == mark):
        if entry.is_dir():
            shutil.rmtree(folder / entry.name, ignore_errors=True)
        entry.replace(folder / entry.name)


def _remove(folder: Path, file: Path) -> None:
    """Remove a file, and the folders that it leaves empty."""
    if not file.parent.resolve().is_relative_to(folder.resolve()):  # a link leads out
        return
    if file.is_file() or file.is_symlink():
        file.unlink()
    for parent in file.parents:
        if parent == folder or parent.is_symlink() or not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()


def _gone(old_mark: str, files: Sequence[str]) -> list[str]:
    """Return the files that only the result of before has."""
    try:
        listed = json.loads(old_mark)["files"]
        names = [PurePosixPath(name) for name in listed if name not in files]
    except (ValueError, TypeError, KeyError):  # half written, or of a version that made no list
        return []
    return [name.as_posix() for name in names if name.name and not name.is_absolute() and ".." not in name.parts]


def _read_file(mark: Path) -> str:
    try:
        return mark.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _read_object(flag: str, address: str) -> str:
    try:
        found = read_object(flag, address)
    except (TrainerError, ValueError):  # who may write need not be allowed to read
        return ""
    return found.text if found else ""
