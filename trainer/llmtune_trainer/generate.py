"""One greedy completion, to see with one's own eyes what training changed."""

from __future__ import annotations

from typing import Any

import torch


def complete(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> str:
    model.eval()
    if tokenizer.chat_template:
        conversation = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        inputs = tokenizer(prompt, return_tensors="pt")
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    new_tokens = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new_tokens, skip_special_tokens=True)).strip()
