"""The folders of the model and the adapters: what can be told of them without loading them, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtune_trainer.cache import Cache
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.serve.adapters import config_problems
from llmtune_trainer.serve.errors import LoadError
from llmtune_trainer.serve.flags import LoraModule, ServeSettings
from llmtune_trainer.sources import FLAGS, check_model_folder, fetch, find_local

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def model_folder(settings: ServeSettings) -> Path:
    """Return the model's folder, downloaded when it was named by --model_id."""
    # An absolute path is never taken for a name on the Hub.
    source = f"hf://{settings.model}" if settings.from_hub else str(Path(settings.model).absolute())
    try:
        folder = find_local("model", source) or _from_hub(source, settings.revision)
        check_model_folder(source, folder)
    except BadInputError as error:
        # The trainer's own checks, in the words of this server's flags.
        raise LoadError(str(error).replace(f"`{FLAGS['model']}`={source!r}", settings.model_said)) from error
    if (folder / CONFIG).is_file():
        raise LoadError(
            f"{settings.model_said} holds an adapter beside the model, and which of them is meant is unclear. "
            "Fix: keep them in two folders, and name the adapter in --lora-modules."
        )
    return folder


def _from_hub(source: str, revision: str | None) -> Path:
    from huggingface_hub import constants  # a third of a second that a folder does not need

    # Beside what the Hub's own client keeps: a server that is restarted finds it again.
    return fetch("model", source, revision, Cache(Path(constants.HF_HOME) / "llmtune", lambda _: None)).path


def adapter_config(module: LoraModule, max_rank: int) -> Mapping[str, Any]:
    """Return the configuration of an adapter that may be served."""
    config = _read_config(module)
    if problems := config_problems(config, max_rank):
        raise LoadError(f"{module.said} cannot be loaded: {' '.join(problems)}")
    return config


def _read_config(module: LoraModule) -> Mapping[str, Any]:
    folder = Path(module.path)
    if not folder.is_dir():
        raise LoadError(
            f"{module.said} does not exist. Fix: correct the path, or mount the volume that holds the adapter."
        )
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise LoadError(f"{module.said} has no {', no '.join(missing)}. Fix: give the folder of a complete adapter.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{module.said} has an {CONFIG} that is no JSON ({error}). Fix: save it again.") from error
    if not isinstance(config, dict):
        raise LoadError(f"{module.said} has an {CONFIG} that holds no object. Fix: save the adapter again.")
    return config
