"""What a training leaves behind: the adapter, or the model, and on request the two merged into one model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from llmtune_trainer.addresses import public_name
from llmtune_trainer.model import load_model
from llmtune_trainer.settings import Settings

# Written by the libraries beside the weights: a pickle and a template text, with paths of this machine in them.
NOT_PART = ("training_args.bin", "README.md")
ADAPTER_CONFIG = "adapter_config.json"
MERGED = "merged"
# vLLM's largest --max-lora-rank.
LARGEST_RANK = 512


def gather(trainer: Any, workspace: Path) -> Path | None:
    """Return a folder with the weights when they lie in parts on all processes, each of which must call this."""
    if not trainer.is_fsdp_enabled:
        return None
    folder = workspace / "gathered"
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    return folder


def save(trainer: Any, settings: Settings, gathered: Path | None, folder: Path) -> None:
    if gathered is None:
        # Under data-parallel training the first process holds all of it.
        trainer.save_model(str(folder))
    else:
        shutil.copytree(gathered, folder, dirs_exist_ok=True)
    for name in NOT_PART:
        (folder / name).unlink(missing_ok=True)
    if settings.use_peft:
        _name_base_model(folder / ADAPTER_CONFIG, settings)


def merge(settings: Settings, model_folder: Path, labels: Sequence[str], folder: Path) -> None:
    """Merge the adapter in ``folder`` into the model as it was before it was quantised."""
    base, tokenizer = load_model(replace(settings, load_in_4bit=False, load_in_8bit=False), model_folder, labels)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(folder / MERGED))
    tokenizer.save_pretrained(str(folder / MERGED))


def unservable(trainer: Any, settings: Settings) -> list[str]:
    """Return why vLLM will not serve the adapter, or the model."""
    classifies = {f"task {settings.task}: only causal language models are served": settings.task == "classification"}
    if not settings.use_peft:
        return [reason for reason, applies in classifies.items() if applies]
    config = trainer.model.peft_config["default"]
    ranks = (config.r, *config.rank_pattern.values())
    checks = classifies | {
        f"bias {config.bias!r}: must be 'none'": config.bias != "none",
        f"modules_to_save {config.modules_to_save}: must be none": bool(config.modules_to_save),
        "use_dora: not supported": config.use_dora,
        f"rank {max(ranks)}: at most {LARGEST_RANK}": max(ranks) > LARGEST_RANK,
    }
    return [reason for reason, applies in checks.items() if applies]


def _name_base_model(file: Path, settings: Settings) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    # PEFT wrote the folder that was loaded, which for S3 and the Hub is gone tomorrow.
    config["base_model_name_or_path"] = public_name(settings.model_name_or_path)
    config["revision"] = settings.model_revision
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
