"""A LoRA adapter of the tiny model whose weights are random but not zero, as if it had been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_files import quietly

PROMPT = "What does the cat eat?"
NEW_TOKENS = 12


@quietly()
def build_adapter(model_folder: Path, folder: Path, seed: int = 0) -> dict[str, str]:
    """Return what the model itself and the adapted one answer greedily to PROMPT, by peft alone."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    answers = {"base": _answer(base, tokenizer)}
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config).eval()
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder)
    return answers | {"adapted": _answer(adapted, tokenizer)}


def _answer(model: Any, tokenizer: Any) -> str:
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))
