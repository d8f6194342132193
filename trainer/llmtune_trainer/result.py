"""What a run leaves: a short summary for whoever reads the pod, and the adapter with the full result beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.object_store import check_writable, upload_folder
from llmtune_trainer.sources import local_path

FLAG = "--output_dir"
SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
# Kubernetes keeps no more of a container's termination message.
TERMINATION_LIMIT = 4096
TERMINATION_LOG = Path("/dev/termination-log")


def summary(
    metrics: Mapping[str, float],
    artifact_uri: str | None,
    samples: Mapping[str, str] | None,
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
    """Return JSON of at most ``limit`` bytes; when it is too long, its texts are cut, never its numbers."""
    text = json.dumps(content, ensure_ascii=False)
    for longest in (2000, 1000, 500, 250, 100, 30):
        if len(text.encode()) <= limit:
            break
        text = json.dumps(_cut(content, longest), ensure_ascii=False)
    return text


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(item, longest) for key, item in value.items()}
    if isinstance(value, str) and len(value) > longest:
        return value[: longest - 1] + "…"
    return value


def check_destination(output_dir: str) -> None:
    """Find out before training that its result could not be stored."""
    if output_dir.startswith("s3://"):
        check_writable(FLAG, output_dir)
        return
    folder = local_path(output_dir)
    if folder is None:
        raise BadInputError(f"`{FLAG}`={output_dir!r} cannot be written to. Fix: give a folder or s3://bucket/prefix.")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInputError(
            f"`{FLAG}`={output_dir!r} cannot be written to: {existing} is no folder this user may write in. "
            "Fix: name another folder, or mount a writable volume there."
        )


def address_of(output_dir: str) -> str:
    folder = local_path(output_dir)
    return output_dir.rstrip("/") if folder is None else str(folder.absolute())


def store(output_dir: str, save: Callable[[Path], None], result: Mapping[str, Any], workspace: Path) -> None:
    """Store what ``save`` writes. A folder with a result.json is complete: it comes last."""
    folder = local_path(output_dir)
    if folder is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the destination, so that moving is renaming; inside it when it exists: it may be a mounted volume.
    beside = workspace if folder is None else folder if folder.exists() else folder.parent
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=beside))
    try:
        unfinished.chmod(0o755)
        save(unfinished)
        (unfinished / RESULT_FILE).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder is None:
            upload_folder(FLAG, unfinished, output_dir, RESULT_FILE)
        elif folder.exists():
            _move_into(folder, unfinished)
        else:
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into(folder: Path, unfinished: Path) -> None:
    (folder / RESULT_FILE).unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir(), key=lambda file: file.name == RESULT_FILE):
        file.replace(folder / file.name)
