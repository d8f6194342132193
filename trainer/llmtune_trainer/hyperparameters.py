"""Which fields of the libraries' classes may be set, and what the classes do not say of them; for schema.py only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmtune_trainer.flags import Kind

__all__ = [
    "BOUNDS",
    "DEFAULTS",
    "EVALUATES",
    "EXAMPLES",
    "KINDS",
    "LORA_NAMES",
    "NOT_SEARCHED",
    "REFUSED",
    "TASKS_OF",
    "Refusal",
]


class Refusal(NamedTuple):
    why: str
    use: str | None  # the flag that does what was wanted
    names: tuple[str, ...]


# By the name of the flag, as all tables here.
REFUSED = (
    Refusal(
        "the result goes to one place",
        "output_dir",
        (
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
            "hub_revision",
        ),
    ),
    Refusal(
        "metrics go to standard output, where Katib reads them",
        "metrics_format",
        (
            *("report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
            *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node"),
        ),
    ),
    Refusal("a loss that is no number has to show", "on_divergence", ("logging_nan_inf_filter",)),
    Refusal("the loss is logged every so many steps", "logging_steps", ("logging_strategy",)),
    Refusal("evaluations are every so many steps, and at the end", "eval_steps", ("eval_strategy",)),
    Refusal("the model before training is evaluated on request", "evaluate_base_model", ("eval_on_start",)),
    Refusal(
        "what a run does follows from its first word, `evaluate` or none", None, ("do_train", "do_eval", "do_predict")
    ),
    Refusal(
        "the trainer makes and evaluates its columns itself",
        None,
        (
            *("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object", "include_for_metrics"),
            *("batch_eval_metrics", "label_names", "remove_unused_columns", "length_column_name", "dataset_kwargs"),
            *("include_num_input_tokens_seen", "skip_memory_metrics", "debug", "shuffle_dataset", "eval_packing"),
            "eval_accumulation_steps",
        ),
    ),
    Refusal(
        "a run that was stopped goes on exactly where it was",
        "save_steps",
        (
            *(
                "save_strategy",
                "save_only_model",
                "save_on_each_node",
                "enable_jit_checkpoint",
                "resume_from_checkpoint",
            ),
            *("restore_callback_states_from_checkpoint", "ignore_data_skip"),
        ),
    ),
    Refusal(
        "what is reported and saved is the model after its last step; among models a search chooses",
        None,
        ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    ),
    Refusal(
        "trials with batches of different sizes do not compare",
        "per_device_train_batch_size",
        ("auto_find_batch_size",),
    ),
    Refusal("the loss must not depend on the number of processes", None, ("average_tokens_across_devices",)),
    Refusal("each row is seen once in a pass, and in an evaluation", None, ("dataloader_drop_last",)),
    Refusal(
        "the device is the machine's, and the processes are torchrun's", None, ("local_rank", "use_cpu", "ddp_backend")
    ),
    Refusal("it follows from the type of the weights", "dtype", ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval")),
    Refusal("transformers has a new name for it", "activation_checkpointing", ("gradient_checkpointing",)),
    Refusal(
        "transformers has a new name for it", "activation_checkpointing_kwargs", ("gradient_checkpointing_kwargs",)
    ),
    Refusal("Liger's kernels are not installed", None, ("use_liger_kernel", "liger_kernel_config")),
    Refusal(
        "models are spread over devices in one way", "fsdp", ("accelerator_config", "parallelism_config", "deepspeed")
    ),
    Refusal("the trainer loads the model itself", "dtype", ("model_init_kwargs",)),
    Refusal("no code out of a model's repository is run", None, ("trust_remote_code",)),
    Refusal("a training has no use for it", None, ("use_cache",)),
    Refusal("rows are cut at their end", "max_length", ("truncation_mode",)),
    Refusal("the tokenizer's own is taken", None, ("pad_token", "eos_token", "chat_template_path")),
    Refusal("the column is called text", "dataset_name", ("dataset_text_field",)),
    Refusal("rows are prepared once, for all trials", "cache_dir", ("dataset_num_proc",)),
    Refusal(
        "it would be written into the rows that all trials share",
        None,
        ("precompute_ref_log_probs", "precompute_ref_batch_size"),
    ),
    Refusal(
        "of messages only the answers are learned, as of completions", "completion_only_loss", ("assistant_only_loss",)
    ),
    Refusal("it follows from the task", "task", ("lora_task_type",)),
    Refusal("the adapter is of the model that is tuned", "model_name_or_path", ("lora_base_model_name_or_path",)),
    Refusal("the adapter is of the model that is tuned", "model_revision", ("lora_revision",)),
    Refusal(
        "it is PEFT's own record",
        None,
        (*("lora_peft_type", "lora_auto_mapping", "lora_peft_version", "lora_inference_mode", "lora_runtime_config"),),
    ),
    Refusal("Megatron has no part in this trainer", None, ("lora_megatron_config", "lora_megatron_core")),
    Refusal(
        "these first weights need passes over the data that the trainer does not make",
        "lora_init_lora_weights",
        ("lora_eva_config", "lora_corda_config", "lora_lora_ga_config"),
    ),
    Refusal("it chooses among adapters that are there already", None, ("lora_arrow_config",)),
)

# Fields of LoraConfig whose flag is not `lora_` and their name: as TRL's ModelConfig calls them.
LORA_NAMES = {name: name for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")}

# What an annotation does not tell.
KINDS: Mapping[str, Kind] = {
    "warmup_steps": Kind("number", minimum=0),
    "fsdp": Kind("boolean"),
    "lora_init_lora_weights": Kind(
        "choice",
        choices=(True, False, "gaussian", "olora", "pissa", "orthogonal", "mica", "loftq"),
        also=r"pissa_niter_[1-9]\d*",
        also_told="pissa_niter_ and a number",
    ),
    "lora_trainable_token_indices": Kind("json", none=True),
    "lora_layer_replication": Kind("json", none=True),
    "lora_rank_pattern": Kind("object", "integer", minimum=1, example='{"q_proj": 16}'),
    "lora_alpha_pattern": Kind("object", "number", above=0, example='{"q_proj": 32}'),
    "loss_type of dpo": Kind(
        "list",
        "choice",
        choices=(
            *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
            *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
        ),
    ),
    "loss_type of sft": Kind("choice", choices=("nll", "dft")),
    "f_divergence_type": Kind("choice", choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")),
    "torch_compile_mode": Kind(
        "choice", choices=("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"), none=True
    ),
    "optim_target_modules": Kind("list", "text", none=True),
    "pad_to_multiple_of": Kind("integer", none=True, also="auto", also_told="auto"),
}

_FROM_0: dict[str, Any] = {"minimum": 0}
_FROM_1: dict[str, Any] = {"minimum": 1}
_ABOVE_0: dict[str, Any] = {"above": 0}
_RATIO: dict[str, Any] = {"minimum": 0, "below": 1}
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
# Of every number; an empty one is any.
BOUNDS: Mapping[str, dict[str, Any]] = {
    "adam_beta1": _RATIO,
    "adam_beta2": _RATIO,
    "adam_epsilon": _ABOVE_0,
    "max_grad_norm": _FROM_0,
    "label_smoothing_factor": _RATIO,
    "neftune_noise_alpha": _ABOVE_0,
    "torch_empty_cache_steps": _FROM_1,
    "logging_steps": _ABOVE_0,
    "eval_delay": _FROM_0,
    "data_seed": _FROM_0,
    "dataloader_num_workers": _FROM_0,
    "dataloader_prefetch_factor": _FROM_1,
    "ddp_bucket_cap_mb": _FROM_1,
    "ddp_timeout": _FROM_1,
    "router_aux_loss_coef": _FROM_0,
    "pad_to_multiple_of": _FROM_1,
    "beta": _ABOVE_0,
    "ld_alpha": _SHARE,
    "loss_weights": _FROM_0,
    "label_smoothing": {"minimum": 0, "below": 0.5},
    "f_alpha_divergence_coef": {},
    "discopop_tau": _ABOVE_0,
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": _FROM_1,
    "lora_layers_to_transform": _FROM_0,
    "lora_alora_invocation_tokens": _FROM_0,
    "lora_qalora_group_size": _FROM_1,
}

EXAMPLES: Mapping[str, str] = {
    "lr_scheduler_kwargs": '{"num_cycles": 2}',
    "optim_args": "rank=64,update_proj_gap=100",
    "optim_target_modules": "attn,mlp",
    "activation_checkpointing_kwargs": '{"every_n_layers": 2}',
    "fsdp_config": '{"reshard_after_forward": true}',
    "torch_compile_backend": "inductor",
    "neftune_noise_alpha": "5",
    "loss_weights": "1,0.5",
    "lora_exclude_modules": "lm_head",
    "lora_modules_to_save": "embed_tokens,lm_head",
    "lora_layers_pattern": "layers",
    "lora_layers_to_transform": "0,1,2",
    "lora_layer_replication": "[[0, 4], [2, 5]]",
    "lora_target_parameters": "experts.gate_up_proj",
    "lora_loftq_config": '{"loftq_bits": 4, "loftq_iter": 1}',
}

# Of what a class leaves to everybody and not all tasks heed.
TASKS_OF: Mapping[str, tuple[str, ...]] = {
    "label_smoothing_factor": ("sft", "classification"),
    "padding_free": ("sft",),
    "pad_to_multiple_of": ("dpo",),
}

# What the loss of a given model depends on, and how it is computed.
EVALUATES = ("completion_only_loss", "beta")
# Trials that differ in these are evaluated on different tokens.
NOT_SEARCHED = ("completion_only_loss",)

# Where the trainer's own default is another than the class's.
DEFAULTS: Mapping[str, Any] = {
    "activation_checkpointing": False,
    "logging_steps": 0.1,
    "padding_free": True,
    "ddp_find_unused_parameters": False,
}
