"""What a run leaves: a summary for whoever reads the pod, and what was trained, with the full result beside it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llmtune_trainer.addresses import local_path
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.object_store import (
    check_writable,
    delete_objects,
    list_etags,
    read_object,
    upload_folder,
    write_object,
)

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
# Of a result that is being stored: what is not yet in its place, and the list of what may be there without a mark.
UNFINISHED = ".unfinished-"
LIST = ".unfinished.json"
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
    for cut in (_cut_what_is_looked_at, _cut):
        for longest in (2000, 1000, 500, 250, 100, 30):
            if len(text.encode()) <= limit:
                return text
            content = cut(content, longest)
            text = json.dumps(content, ensure_ascii=False)
    return text


def _cut_what_is_looked_at(content: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """Cut samples, errors, and what is told of the data."""
    parts = {key: _cut(content[key], longest) for key in ("samples", "error") if key in content}
    manifest = content.get("manifest") or {}
    if "data" in manifest:
        parts["manifest"] = {**manifest, "data": _cut(manifest["data"], longest)}
    return {**content, **parts}


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
    result removes those that it does not replace, and no others. As long as there is no mark, another list has the
    files that may lie there: those of before, and those that this result brings, unless one of that name was there,
    which may be the user's. So who is killed half way leaves nothing that the next result does not find.
    """
    folder = local_path(address)
    beside, prefix = (workspace, UNFINISHED) if folder is None else _place_beside(folder.absolute())
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
    try:
        unfinished.chmod(0o755)
        save(unfinished)
        files = sorted(file.relative_to(unfinished).as_posix() for file in unfinished.rglob("*") if file.is_file())
        listed = {**content, "files": files}
        (unfinished / mark).write_text(json.dumps(listed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder is None:
            _upload(flag, address.rstrip("/"), unfinished, mark, files)
        elif folder.exists():
            _move_into(folder, unfinished, mark, files)
        else:
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _place_beside(folder: Path) -> tuple[Path, str]:
    """Return where to fill a folder first, and the start of its name; what killed ones left there goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Inside when it exists: it may be a mounted volume.
    place = folder if folder.exists() else folder.parent
    prefix = f"{UNFINISHED}{folder.name}-"
    own = re.compile(rf"{re.escape(prefix)}\w+")  # and not that of a neighbour whose name goes on with a dash
    for left in [entry for entry in place.iterdir() if own.fullmatch(entry.name)]:
        shutil.rmtree(left, ignore_errors=True)
    return place, prefix


def _move_into(folder: Path, unfinished: Path, mark: str, files: Sequence[str]) -> None:
    before = _names_in(_read_file(folder / mark)) or _names_in(_read_file(folder / LIST))
    brought = [name for name in files if not os.path.lexists(folder / name)]
    (unfinished / LIST).write_text(json.dumps({"files": [*before, *brought]}), encoding="utf-8")
    (unfinished / LIST).replace(folder / LIST)
    (folder / mark).unlink(missing_ok=True)
    for name in set(before) - set(files):
        _remove(folder, folder / name)
    for name in (*files, mark):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).replace(folder / name)
    (folder / LIST).unlink()


def _remove(folder: Path, file: Path) -> None:
    """Remove a file, and the folders that it leaves empty."""
    if not file.parent.resolve().is_relative_to(folder.resolve()):  # a link leads out
        return
    if file.is_file() or file.is_symlink():
        file.unlink()
    for parent in itertools.takewhile(lambda parent: parent != folder, file.parents):
        if parent.is_dir():
            if any(parent.iterdir()) or parent.is_symlink():
                break
            parent.rmdir()


def _upload(flag: str, address: str, unfinished: Path, mark: str, files: Sequence[str]) -> None:
    try:
        there: Collection[str] = list_etags(flag, address)
    except TrainerError:  # who may write need not be allowed to list, nor to read
        there = files
    texts = (_read_object(flag, address, name) for name in (mark, LIST))
    before: list[str] = next(filter(None, map(_names_in, texts)), [])
    brought = [name for name in files if name not in there]
    write_object(flag, f"{address}/{LIST}", json.dumps({"files": [*before, *brought]}))
    upload_folder(flag, unfinished, address, mark, [name for name in before if name not in files])
    delete_objects(flag, address, [LIST])


def _names_in(text: str) -> list[str]:
    """Return the files that a mark or a list names, and that lie below it."""
    try:
        names = [PurePosixPath(name) for name in json.loads(text)["files"]]
    except (ValueError, TypeError, KeyError):  # half written, or of a version that made no list
        return []
    return [name.as_posix() for name in names if name.name and not name.is_absolute() and ".." not in name.parts]


def _read_file(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _read_object(flag: str, address: str, name: str) -> str:
    try:
        found = read_object(flag, f"{address}/{name}")
    except TrainerError:
        return ""
    return found.text if found else ""
