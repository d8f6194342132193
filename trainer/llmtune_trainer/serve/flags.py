"""The flags: those of KServe's huggingfaceserver and of vLLM that choose what is served, under both of their names.

KServe appends the flags of an InferenceService to those of its runtime, so the last of a flag given twice counts.
Only the standard library is imported, so that a typo costs no import of torch.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from llmtune_trainer.settings import SettingsError

DEFAULT_NAME = "model"
DEFAULT_FOLDER = "/mnt/models"
DTYPES = {"auto": "auto", "bfloat16": "bfloat16", "float32": "float32", "float16": "float16"}
DTYPES |= {"float": "float32", "half": "float16"}
# What vLLM has kernels for.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
BACKENDS = ("auto", "huggingface", "vllm")
# About GPUs, batches and logs of the servers that this one stands in for: a manifest that sets them runs here too.
WITHOUT_EFFECT = (
    "block-size",
    "cpu-offload-gb",
    "data-parallel-size",
    "disable-log-requests",
    "disable-log-stats",
    "disable-uvicorn-access-log",
    "distributed-executor-backend",
    "enable-chunked-prefill",
    "enable-log-requests",
    "enable-prefix-caching",
    "enforce-eager",
    "gpu-memory-utilization",
    "grpc-port",
    "kv-cache-dtype",
    "max-cpu-loras",
    "max-log-len",
    "max-loras",
    "max-num-batched-tokens",
    "max-num-seqs",
    "pipeline-parallel-size",
    "swap-space",
    "task",
    "tensor-parallel-size",
    "trust-remote-code",
    "uvicorn-log-level",
    "workers",
)


@dataclass(frozen=True)
class LoraModule:
    name: str
    path: str

    @property
    def said(self) -> str:
        return f"`--lora-modules` {self.name}={self.path}"


@dataclass(frozen=True)
class ServeSettings:
    names: tuple[str, ...]
    model: str
    model_flag: str
    revision: str | None
    host: str
    port: int
    dtype: str
    max_model_len: int | None
    lora_modules: tuple[LoraModule, ...]
    max_lora_rank: int
    api_key: str | None
    without_effect: tuple[str, ...]

    @property
    def from_hub(self) -> bool:
        return self.model_flag == "--model_id"

    @property
    def model_said(self) -> str:
        return f"`{self.model_flag}`={self.model!r}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError([f"{message}. Fix: see --help."])


def _parser() -> _Parser:
    parser = _Parser(prog="python -m llmtune_trainer.serve", description=__doc__, allow_abbrev=False)
    model = "the folder that holds the model"
    parser.add_argument("--model-dir", help=f"{model} (default {DEFAULT_FOLDER})")
    parser.add_argument("--model", help=f"{model}, in vLLM's words")
    parser.add_argument("--model-id", help="serve org/model of the Hugging Face Hub: the only flag that reaches out")
    parser.add_argument("--model-revision", "--revision", help="branch, tag or commit of --model-id")
    parser.add_argument(
        "--model-name", "--served-model-name", nargs="+", help=f"what requests call the model (default {DEFAULT_NAME})"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default 127.0.0.1)")
    parser.add_argument("--port", "--http-port", default="8080", help="the port; 0 picks a free one (default 8080)")
    parser.add_argument("--dtype", default="auto", help=f"{', '.join(DTYPES)}; auto: as the model was saved")
    parser.add_argument("--max-model-len", help="longest prompt and answer together, in tokens (default: the model's)")
    parser.add_argument("--enable-lora", action="store_true", help="serve adapters too")
    parser.add_argument(
        "--lora-modules",
        nargs="+",
        action="extend",
        default=[],
        metavar="ADAPTER",
        help='name=folder, or {"name": …, "path": folder}; any number of them, and repeatable',
    )
    parser.add_argument("--max-lora-rank", default="16", help="refuse adapters of a higher rank (default 16)")
    parser.add_argument("--backend", default="auto", help="taken for huggingfaceserver's sake: transformers generates")
    parser.add_argument("--api-key", help="require this Bearer token; better in VLLM_API_KEY, which `ps` does not show")
    for name in WITHOUT_EFFECT:
        parser.add_argument(f"--{name}", nargs="?", const="", help=argparse.SUPPRESS)
    return parser


def usage() -> str:
    return _parser().format_help()


def parse_flags(arguments: Sequence[str], environ: Mapping[str, str]) -> ServeSettings:
    """Raise one SettingsError that lists every mistake."""
    parser = _parser()
    given, unknown = parser.parse_known_args([_hyphenated(text) for text in arguments])
    # Its value would be listed as well.
    problems = [_unknown_flag(text, parser) for text in [text for text in unknown if text[:1] == "-"] or unknown]

    def checked(flag: str, value: str, check: Callable[[str], Any]) -> Any:
        try:
            return check(value)
        except ValueError as error:
            problems.append(f"`{flag}`={value!r} {error}")
            return None

    model_flag, model = _model_of(given, problems)
    names = given.model_name or [given.model or DEFAULT_NAME]
    port = checked("--port", given.port, _whole_number(0, 65535, "8080"))
    dtype = checked("--dtype", given.dtype, _choice(DTYPES))
    checked("--backend", given.backend, _choice({name: name for name in BACKENDS}))
    length = given.max_model_len
    max_model_len = None if length is None else checked("--max-model-len", length, _whole_number(1, None, "2048"))
    max_lora_rank = checked("--max-lora-rank", given.max_lora_rank, _choice({str(rank): rank for rank in LORA_RANKS}))
    adapters = [checked("--lora-modules", text, lora_modules) or () for text in given.lora_modules]
    modules = tuple(module for found in adapters for module in found)
    problems += _name_problems([*names, *(module.name for module in modules)])
    if given.lora_modules and not given.enable_lora:
        problems.append("`--lora-modules` is given without `--enable-lora`. Fix: add --enable-lora.")
    if problems:
        raise SettingsError(problems)
    return ServeSettings(
        names=tuple(names),
        model=model,
        model_flag=model_flag,
        revision=given.model_revision,
        host=given.host,
        port=port,
        dtype=dtype,
        max_model_len=max_model_len,
        lora_modules=modules,
        max_lora_rank=max_lora_rank,
        api_key=given.api_key or environ.get("VLLM_API_KEY") or None,
        without_effect=tuple(name for name in WITHOUT_EFFECT if getattr(given, name.replace("-", "_")) is not None),
    )


def lora_modules(text: str) -> tuple[LoraModule, ...]:
    """Read what follows --lora-modules: name=folder, an object, or a list of objects."""
    if not text.lstrip().startswith(("{", "[")):
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise ValueError("must be name=folder or a JSON object. Fix: write tuned=/mnt/models/adapter.")
        return (LoraModule(name, path),)
    try:
        decoded = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'is no JSON ({error}). Fix: write {{"name":"tuned","path":"/mnt/models/adapter"}}.'
        ) from error
    entries = decoded if isinstance(decoded, list) else [decoded]
    if not all(isinstance(entry, dict) and entry.get("name") and entry.get("path") for entry in entries):
        raise ValueError('must have a "name" and a "path". Fix: {"name":"tuned","path":"/mnt/models/adapter"}.')
    return tuple(LoraModule(str(entry["name"]), str(entry["path"])) for entry in entries)


def _model_of(given: argparse.Namespace, problems: list[str]) -> tuple[str, str]:
    """Return the flag that names the model, and the model. vLLM's --model comes after a runtime's --model-dir."""
    folder = ("--model", given.model) if given.model else ("--model_dir", given.model_dir or DEFAULT_FOLDER)
    if not given.model_id:
        if given.model_revision:
            problems.append(
                f"`--model_revision`={given.model_revision!r} has no meaning for a folder. Fix: leave it out."
            )
        return folder
    if given.model:
        problems.append(f"`--model_id`={given.model_id!r} and `--model`={given.model!r} both name it. Fix: keep one.")
    return ("--model_id", given.model_id)


def _name_problems(names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"`--model_name` or `--lora-modules` gives the name {name!r} twice. Fix: rename one." for name in twice]


def _hyphenated(text: str) -> str:
    """Both servers take either spelling: --model_dir and --model-dir."""
    if not text.startswith("--"):
        return text
    flag, separator, value = text.partition("=")
    return flag.replace("_", "-") + separator + value


def _unknown_flag(text: str, parser: argparse.ArgumentParser) -> str:
    flag = text.partition("=")[0]
    near = difflib.get_close_matches(flag, parser._option_string_actions, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help lists the flags."
    return f"`{flag}` is no flag of this server: {hint} Fix: correct it or leave it out."


def _whole_number(minimum: int, maximum: int | None, example: str) -> Callable[[str], int]:
    def check(text: str) -> int:
        bound = f"from {minimum} to {maximum}" if maximum else f"of at least {minimum}"
        if not text.isdecimal() or int(text) < minimum or (maximum is not None and int(text) > maximum):
            raise ValueError(f"must be a whole number {bound}. Fix: for example {example}.")
        return int(text)

    return check


def _choice(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def check(text: str) -> Any:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}. Fix: choose one of them.")
        return values[text]

    return check
