"""The ways in which others fine-tune, each as a process of its own: ``python -m benchmarks.trainer_peers NAME SPEC``.

* ``upstream``: as Kubeflow's LLM trainer does: every row is padded to the longest length there is, everything is
  learned but padding, and with it the end of the answer. That trainer pads to the length of the model (8,192 tokens
  for SmolLM2), which no CPU finishes; here it is --max_length.
* ``dynamic``: transformers' Trainer, each batch padded to its longest row, answers only are learned.
* ``trl``: TRL's SFTTrainer with its own defaults, but for what all share.
* ``trl_packed``: TRL's ``packing``, a batch of about as many tokens as the others'.
* ``trl_packed_kept``: the same, and activations are kept rather than computed twice, as ours are.

They share model, rows, adapter, learning rate, schedule and precision. SPEC is a JSON file of :class:`Task`. The end of
each step is printed as ``step <seconds since the epoch>``; the adapter is left in ``output``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    """What all do alike."""

    model: str
    dataset: str
    output: str
    max_length: int
    batch: int
    learning_rate: float
    lora_r: int
    lora_alpha: int

    def write(self, file: Path) -> Path:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return file

    @classmethod
    def read(cls, file: Path) -> Task:
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def rows(self) -> Rows:
        text = Path(self.dataset, "train.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def load(task: Task) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.bfloat16)
    return model.to("cuda" if on_gpu else "cpu"), AutoTokenizer.from_pretrained(task.model)


def adapted(task: Task, model: Any) -> Any:
    from peft import get_peft_model

    return get_peft_model(model, lora(task))


def lora(task: Task) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM", r=task.lora_r, lora_alpha=task.lora_alpha, lora_dropout=0.0, target_modules="all-linear"
    )


def shared(task: Task) -> dict[str, Any]:
    """The arguments that transformers' and TRL's trainers both take."""
    import torch

    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": f"{task.output}.trainer",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "bf16": True,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "weight_decay": 0.01,
        "num_train_epochs": 1,
        "per_device_train_batch_size": task.batch,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 42,
    }


def chat(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], int]:
    """Return a row's tokens, and how many of them are the prompt's."""
    asked = [{"role": "user", "content": row["prompt"]}]
    answered = [*asked, {"role": "assistant", "content": row["completion"]}]
    whole = tokenizer.apply_chat_template(answered, return_dict=False)
    return whole, len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))


def upstream(task: Task) -> Any:
    from datasets import Dataset
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    model, tokenizer = load(task)
    tokenizer.pad_token = tokenizer.eos_token
    texts = [tokenizer.decode(chat(tokenizer, row)[0]) for row in task.rows()]
    encoded = Dataset.from_dict({"text": texts}).map(
        lambda row: tokenizer(row["text"], padding="max_length", truncation=True, max_length=task.max_length),
        remove_columns=["text"],
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    arguments = TrainingArguments(**shared(task))
    return Trainer(adapted(task, model), arguments, train_dataset=encoded, data_collator=collator)


def dynamic(task: Task) -> Any:
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer = load(task)

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        tokens, prompt = chat(tokenizer, row)
        tokens = tokens[: task.max_length]
        return {"input_ids": tokens, "labels": [-100] * min(prompt, len(tokens)) + tokens[prompt:]}

    encoded = Dataset.from_list(task.rows()).map(encode, remove_columns=["prompt", "completion"])
    collator = DataCollatorForSeq2Seq(tokenizer)
    arguments = TrainingArguments(**shared(task))
    return Trainer(adapted(task, model), arguments, train_dataset=encoded, data_collator=collator)


def trl(task: Task, **changes: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(task)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in task.rows()
    ]
    arguments = SFTConfig(**{**shared(task), "max_length": task.max_length, **changes})
    return SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora(task)
    )


def trl_packed(task: Task, **changes: Any) -> Any:
    # A packed row has about as many tokens as the others' batch.
    return trl(task, packing=True, per_device_train_batch_size=1, **changes)


def trl_packed_kept(task: Task) -> Any:
    return trl_packed(task, activation_checkpointing=False, gradient_checkpointing=False)


PEERS: dict[str, Callable[[Task], Any]] = {
    "upstream": upstream,
    "dynamic": dynamic,
    "trl": trl,
    "trl_packed": trl_packed,
    "trl_packed_kept": trl_packed_kept,
}


def main(name: str, spec: Path) -> None:
    from transformers import TrainerCallback, set_seed

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            print(f"step {time.time()!r}", flush=True)

    set_seed(42)
    task = Task.read(spec)
    trainer = PEERS[name](task)
    trainer.add_callback(Clock())
    trainer.train()
    trainer.model.save_pretrained(task.output)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
