"""The model and its adapters in memory: loaded once, at start, and switched between requests."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llmtune_trainer.serve.adapters import shape_problem
from llmtune_trainer.serve.errors import LoadError
from llmtune_trainer.serve.flags import LoraModule, ServeSettings
from llmtune_trainer.serve.folders import WEIGHTS
from llmtune_trainer.serve.turns import Turns

# Of a generation_config.json, what vLLM takes as a request's defaults.
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Card:
    """A name that requests may use: the base model's, or an adapter's, whose parent is the base model's name."""

    name: str
    root: str
    parent: str | None = None
    # Within peft, where a name must not hold a dot.
    slot: str | None = None


class ServedModel:
    """What all requests share. Only who has the turn may use the model: which adapter it applies is its own state."""

    def __init__(self, model: Any, tokenizer: Any, cards: Sequence[Card], max_model_len: int) -> None:
        adapted = any(card.slot for card in cards)
        self._adapters = model if adapted else None
        # peft puts its layers into the model itself, which is what generates.
        self.model = model.get_base_model() if adapted else model
        self._active: str | None = cards[0].name
        self.turns = Turns()
        self.tokenizer = tokenizer
        self.cards: Mapping[str, Card] = {card.name: card for card in cards}
        self.max_model_len = max_model_len
        self.created = int(time.time())
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        saved = self.model.generation_config
        self.sampling_defaults = {
            name: value for name in SAMPLING_DEFAULTS if (value := getattr(saved, name)) is not None
        }
        self.end_tokens = _end_tokens(saved, tokenizer)
        # What a request does not say is ours to say, not the file's.
        self.model.generation_config = GenerationConfig()
        if adapted:
            model.base_model.disable_adapter_layers()

    def activate(self, name: str) -> None:
        """Make the model the one of this name."""
        if self._adapters is None or name == self._active:
            return
        # Until it is done, the model is nobody's.
        self._active = None
        slot = self.cards[name].slot
        if slot is None:
            self._adapters.base_model.disable_adapter_layers()
        else:
            self._adapters.base_model.enable_adapter_layers()
            self._adapters.set_adapter(slot, inference_mode=True)
        self._active = name


def load(settings: ServeSettings, folder: Path, adapters: Sequence[Mapping[str, Any]]) -> ServedModel:
    """Load what lies in the model's folder, and the adapters, whose configurations are given in their order."""
    with warnings.catch_warnings():
        # The libraries deprecate each other's options; none of it is about this model.
        warnings.simplefilter("ignore")
        tokenizer, model = _load_model(folder, settings)
        max_model_len = _max_model_len(model.config, settings)
        base = settings.names[0]
        cards = [Card(name, settings.model) for name in settings.names]
        widths = _layer_widths(model)
        for index, (module, config) in enumerate(zip(settings.lora_modules, adapters, strict=True)):
            _check_shapes(module, widths, config.get("base_model_name_or_path"))
            slot = f"adapter_{index}"
            model = _with_adapter(model, module, slot)
            cards.append(Card(module.name, module.path, base, slot))
        return ServedModel(model.eval(), tokenizer, cards, max_model_len)


def _load_model(folder: Path, settings: ServeSettings) -> tuple[Any, Any]:
    dtype = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _explained(settings.model_said):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        model = model.to(device)
    if report["missing_keys"]:
        # transformers would go on with random numbers in their place.
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise LoadError(
            f"{settings.model_said} has no weights for {len(report['missing_keys'])} of its tensors ({missing}). "
            "Fix: copy the model again."
        )
    return tokenizer, model


def _with_adapter(model: Any, module: LoraModule, slot: str) -> Any:
    # Half a second that a server without adapters does not pay.
    from peft import PeftModel

    with _explained(module.said):
        if isinstance(model, PeftModel):
            model.load_adapter(module.path, adapter_name=slot, local_files_only=True)
            return model
        return PeftModel.from_pretrained(model, module.path, adapter_name=slot, local_files_only=True)


def _check_shapes(module: LoraModule, widths: Mapping[str, tuple[int, int]], trained_on: str | None) -> None:
    with _explained(module.said), safe_open(Path(module.path) / WEIGHTS, framework="pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    if problem := shape_problem(shapes, widths, trained_on):
        raise LoadError(f"{module.said} cannot be loaded: {problem}")


@contextmanager
def _explained(said: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each library has its own for a file it cannot read
        raise LoadError(f"{said} cannot be loaded: {_first_line(error)}. Fix: {_load_fix(error)}") from error


def _layer_widths(model: Any) -> Mapping[str, tuple[int, int]]:
    """Return (in, out) of each linear layer of a model without adapters."""
    widths = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        # GPT-2's Conv1D is a linear layer that keeps its matrix the other way round.
        out, into = reversed(weight.shape) if type(module).__name__ == "Conv1D" else weight.shape
        widths[name] = (int(into), int(out))
    return widths


def _max_model_len(config: Any, settings: ServeSettings) -> int:
    own: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    asked = settings.max_model_len
    if own is not None and asked is not None and asked > own:
        raise LoadError(
            f"`--max-model-len`={asked} is above the model's own limit of {own} (max_position_embeddings). "
            f"Fix: give at most {own}, or leave it out."
        )
    limit = asked or own
    if limit is None:
        raise LoadError("The model's config.json has no max_position_embeddings. Fix: give --max-model-len.")
    return limit


def _end_tokens(saved: Any, tokenizer: Any) -> frozenset[int]:
    told = saved.eos_token_id
    ids = told if isinstance(told, list) else [told]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300].rstrip('.')}"


def _load_fix(error: BaseException) -> str:
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "give the pod more memory, or serve a smaller model or --dtype=bfloat16."
    return "give the complete folder of a causal language model, or of an adapter for it, as it was saved."
