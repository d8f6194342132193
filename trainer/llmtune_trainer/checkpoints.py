"""Checkpoints: what a run that was ended goes on from, in a folder or below an S3 prefix.

Each is a folder ``checkpoint-<step>`` with a mark in it, which is written last and says for which run it is good. One
without its mark is half written, and is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmtune_trainer import __version__
from llmtune_trainer.addresses import local_path
from llmtune_trainer.object_store import delete_folder, download_prefix, list_etags, read_named
from llmtune_trainer.result import store
from llmtune_trainer.settings import ADDRESSES, Settings

FLAG = "--checkpoint_dir"
MARK = "checkpoint.json"
NAME = re.compile(r"checkpoint-(\d+)")
# Of what the libraries save, for adapters, whole models and FSDP; the rest is the tokenizer, and a pickle with paths of
# this machine.
PARTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "optimizer.bin",
    "optimizer.pt",
    "pytorch_model_fsdp.bin",
    "rng_state*.pth",
    "scheduler.pt",
    "trainer_state.json",
)


def identity(settings: Settings, model_version: str, dataset_version: str, processes: int) -> dict[str, Any]:
    """Return what the course of a training depends on, as JSON gives it back."""
    left_out = (*ADDRESSES, "save_total_limit", *(["max_steps"] if settings.keep_checkpoints else []))
    course = {name: value for name, value in asdict(settings).items() if name not in left_out}
    others = {
        "model": model_version,
        "dataset": dataset_version,
        "processes": processes,
        "trainer_version": __version__,
    }
    known: dict[str, Any] = json.loads(json.dumps({**course, **others}))
    return known


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run; or, for longer runs, of all that differ in ``max_steps`` only."""

    place: str
    identity: Mapping[str, Any]
    limit: int
    workspace: Path
    for_longer_runs: bool = False

    @classmethod
    def of(cls, settings: Settings, identity: Mapping[str, Any], workspace: Path) -> Checkpoints | None:
        place = settings.checkpoint_place
        if place is None:
            return None
        if settings.keep_checkpoints:
            # Trials share the place: a folder of their own keeps them from removing each other's.
            place = (
                f"{place.rstrip('/')}/{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]}"
            )
        return cls(place, identity, settings.save_total_limit, workspace, settings.keep_checkpoints)

    def newest(self, below: int) -> tuple[int, str | None]:
        """Return the step to go on from, or 0 and, when there are checkpoints of others, why they will not do.

        :param below: the last step; who has got there has nothing left to train.
        """
        marks = self._read_marks()
        if own := [step for step in self._own(marks) if step < below]:
            return max(own), None
        marks = {step: mark for step, mark in marks.items() if mark.get("identity") != self.identity}
        return 0, self._refusal(marks[max(marks)]) if marks else None

    def fetch(self, step: int) -> Path:
        folder = self._local_folder()
        if folder is not None:
            return folder / _name(step)
        return download_prefix(FLAG, f"{self.place}/{_name(step)}", self.workspace / "resumed" / _name(step))

    def save(self, made: Path, step: int) -> None:
        def copy(folder: Path) -> None:
            for file in (file for pattern in PARTS for file in made.glob(pattern)):
                with shutil.copyfile(file, folder / file.name).open("rb") as copied:
                    os.fsync(copied.fileno())  # the node may be what is lost

        mark = {"step": step, "identity": dict(self.identity)}
        store(FLAG, f"{self.place}/{_name(step)}", copy, mark, self.workspace, MARK)
        self._delete_all_but(sorted(self._own(self._read_marks()))[-self.limit :])

    def remove(self) -> None:
        self._delete_all_but([])
        folder = self._local_folder()
        if folder is not None and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _local_folder(self) -> Path | None:
        return local_path(self.place)

    def _own(self, marks: Mapping[int, Mapping[str, Any]]) -> list[int]:
        return [step for step, mark in marks.items() if mark.get("identity") == self.identity]

    def _refusal(self, mark: Mapping[str, Any]) -> str:
        theirs = mark.get("identity") or {}
        names = sorted(name for name in {*theirs, *self.identity} if theirs.get(name) != self.identity.get(name))
        told = ", ".join(f"{name} {theirs.get(name)!r}, now {self.identity.get(name)!r}" for name in names[:3])
        return f"the checkpoint of step {mark.get('step')} is of another run ({told})"

    def _read_marks(self) -> dict[int, dict[str, Any]]:
        folder = self._local_folder()
        if folder is None:
            texts = read_named(FLAG, self.place, MARK)
        else:
            texts = {mark.parent.name: mark.read_text(encoding="utf-8") for mark in folder.glob(f"*/{MARK}")}
        steps = {int(found[1]): text for name, text in texts.items() if (found := NAME.fullmatch(name))}
        return {step: mark for step, text in steps.items() if (mark := _read_mark(text)) is not None}

    def _delete_all_but(self, kept: list[int]) -> None:
        folder = self._local_folder()
        if folder is None:
            names = {PurePosixPath(name).parts[0] for name in list_etags(FLAG, self.place)}
        else:
            names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        for name in names - {_name(step) for step in kept}:
            if folder is None and NAME.fullmatch(name):
                delete_folder(FLAG, f"{self.place}/{name}", MARK)
            elif folder is not None and (NAME.fullmatch(name) or name.startswith(".unfinished-")):
                (folder / name / MARK).unlink(missing_ok=True)
                shutil.rmtree(folder / name, ignore_errors=True)


def _read_mark(text: str) -> dict[str, Any] | None:
    """A node that went down may leave a mark without content."""
    try:
        mark = json.loads(text)
    except ValueError:
        return None
    return mark if isinstance(mark, dict) else None


def _name(step: int) -> str:
    return f"checkpoint-{step}"
