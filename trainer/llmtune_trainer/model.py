"""The model of a task with its tokenizer, and the adapter that is trained on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.refusals import loading
from llmtune_trainer.settings import Settings

AUTO_CLASSES = {
    "sft": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
    "dpo": "AutoModelForCausalLM",
}
PEFT_TASKS = {"sft": "CAUSAL_LM", "classification": "SEQ_CLS", "dpo": "CAUSAL_LM"}
# Of classifiers, trained as a whole and so never in 4 or 8 bit. Left to itself the library takes the last parameter for
# the head, and that is its bias.
HEADS = ["score", "classifier", "classification_head", ".*pooler"]


def load_model(settings: Settings, folder: Path, labels: Sequence[str]) -> tuple[Any, Any]:
    """Return the model and its tokenizer."""
    with loading(settings, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Updates of trained weights are lost in bfloat16, so there only the arithmetic is: autocast.
    dtype = getattr(torch, settings.dtype) if settings.use_peft else torch.float32
    given = {"dtype": dtype, "quantization_config": _quantization(settings), **_classes(labels)}
    auto_class = getattr(transformers, AUTO_CLASSES[settings.task])
    given = {name: value for name, value in given.items() if value is not None}
    with loading(settings, folder):
        model, found = auto_class.from_pretrained(folder, output_loading_info=True, **given)
    model.new_modules = _new_modules(settings, found)
    if settings.use_peft:
        _check_modules(settings, model)
    if settings.load_in_4bit:
        _keep_gradients(model)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if _has_flash_attention() and model._supports_flash_attn and settings.dtype == "bfloat16":
        model.set_attn_implementation("flash_attention_2")
    return model, tokenizer


def make_trained_exact(model: Any) -> None:
    """Make float32 what is trained: small steps are lost in bfloat16."""
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()


def adapter_config(settings: Settings) -> LoraConfig | None:
    """Return None when all weights are to be trained."""
    if not settings.use_peft:
        return None
    modules = settings.lora_target_modules
    ours = {
        "task_type": PEFT_TASKS[settings.task],
        "r": settings.lora_r,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": modules if isinstance(modules, str) else list(modules),
    }
    return LoraConfig(**(ours | settings.passed_to("LoraConfig")))


def _new_modules(settings: Settings, found: Mapping[str, Any]) -> list[str]:
    """Return the modules that the checkpoint has no weights for: of a classifier its head, else it is broken."""
    missing = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if missing and settings.task != "classification":
        names = ", ".join(sorted(missing)[:3])
        raise BadInputError(
            f"`--model_name_or_path`={settings.model_name_or_path!r} has no weights for {len(missing)} of its tensors "
            f"({names}). Fix: give a complete model."
        )
    return sorted({name.rpartition(".")[0] for name in missing})


def _check_modules(settings: Settings, model: Any) -> None:
    """PEFT says nothing of a module to save that is not there, and its word on targets names no flag."""
    known = [f".{name}" for name, _ in model.named_modules()]
    targets = [] if isinstance(settings.lora_target_modules, str) else list(settings.lora_target_modules)
    saved = settings.hyperparameters.get("lora_modules_to_save") or []
    # Of the targets one is enough: a search may name those of several models.
    found = any(name.endswith(f".{target}") for name in known for target in targets)
    missing = {
        "lora_target_modules": [] if found else targets,
        "lora_modules_to_save": [module for module in saved if not any(name.endswith(module) for name in known)],
    }
    for flag, names in missing.items():
        if names:
            there = {name.rpartition(".")[2] for name in known if not name[-1].isdecimal()} - {""}
            raise BadInputError(
                f"`--{flag}`={','.join(names)!r} is no module of {settings.model_name_or_path}. "
                f"Fix: give some of {', '.join(sorted(there))}."
            )


def _classes(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {}
    numbers = {label: number for number, label in enumerate(labels)}
    # A head for other classes gives way to a new one.
    return {"id2label": dict(enumerate(labels)), "label2id": numbers, "ignore_mismatched_sizes": True}


def _quantization(settings: Settings) -> BitsAndBytesConfig | None:
    if not settings.load_in_4bit and not settings.load_in_8bit:
        return None
    flag = "--load_in_4bit" if settings.load_in_4bit else "--load_in_8bit"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadInputError(
            f"`{flag}`=true needs bitsandbytes, which is not installed. "
            "Fix: use an image with bitsandbytes, or leave the flag out."
        )
    whole = {"llm_int8_skip_modules": HEADS if settings.task == "classification" else None}
    if settings.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, **whole)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
        **whole,
    )


def _keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from packing weights on a CPU: what has been evaluated once would let no gradient through."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def _has_flash_attention() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
