"""What the model server decides: its flags, which adapters it takes, how it cuts text, and how it fails to start."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny_adapter
from llmtune_trainer.serve.__main__ import main
from llmtune_trainer.serve.adapters import config_problems, shape_problem
from llmtune_trainer.serve.flags import LoraModule, lora_modules, parse_flags
from llmtune_trainer.serve.protocol import CompletionRequest
from llmtune_trainer.settings import SettingsError

TUNED = LoraModule("tuned", "/mnt/models/adapter")
GOOD = {"peft_type": "LORA", "r": 8, "bias": "none", "modules_to_save": None, "use_dora": False}


@pytest.mark.parametrize(
    "flags",
    [
        ["--model_name=chat", "--model_dir=/m", "--backend=vllm", "--enable-lora", "--max-lora-rank=64"],
        ["--served-model-name", "chat", "--model", "/m", "--enable-lora", "--max_lora_rank", "64", "--max-loras", "2"],
        # As KServe merges: the runtime's flags, then the InferenceService's.
        [
            "--model_name=isvc",
            "--max-lora-rank=8",
            "--model_name=chat",
            "--model=/m",
            "--enable_lora",
            "--max-lora-rank=64",
        ],
    ],
    ids=["huggingfaceserver", "vLLM", "the last one counts"],
)
def test_the_flags_of_both_servers_mean_the_same(flags: list[str]) -> None:
    settings = parse_flags([*flags, "--lora-modules", "tuned=/mnt/models/adapter"], {})
    assert (settings.names, settings.model, settings.max_lora_rank) == (("chat",), "/m", 64)
    assert settings.lora_modules == (TUNED,)
    assert (settings.host, settings.port, settings.dtype, settings.max_model_len) == ("127.0.0.1", 8080, "auto", None)


def test_without_flags_it_serves_what_kserve_mounts() -> None:
    settings = parse_flags([], {"VLLM_API_KEY": "key"})
    assert (settings.names, settings.model, settings.api_key) == (("model",), "/mnt/models", "key")
    assert not settings.from_hub
    assert parse_flags(["--model_id=org/m", "--model_revision=v1"], {}).from_hub
    assert parse_flags(["--model=/m", "--dtype=half"], {"VLLM_API_KEY": ""}).names == ("/m",)


@pytest.mark.parametrize(
    "text",
    [
        "tuned=/mnt/models/adapter",
        '{"name": "tuned", "path": "/mnt/models/adapter", "base_model_name": "base"}',
        '[{"name": "tuned", "path": "/mnt/models/adapter"}]',
    ],
)
def test_an_adapter_is_named_in_three_ways(text: str) -> None:
    assert lora_modules(text) == (TUNED,)


def test_every_wrong_flag_is_reported_at_once() -> None:
    flags = ["--prot", "3", "--port=70000", "--dtype=int4", "--max-lora-rank=5", "--max-model-len=0", "--backend=tgi"]
    lora = ["--lora-modules", "tuned", '{"name": "tuned"}', "{", "a=/x", "a=/y"]
    with pytest.raises(SettingsError) as caught:
        parse_flags([*flags, *lora, "--model_revision=v1"], {})
    expected = [
        "`--prot` is no flag of this server: did you mean --port?",
        "`--model_revision`='v1' has no meaning for a folder",
        "`--port`='70000' must be a whole number from 0 to 65535",
        "`--dtype`='int4' must be one of auto, bfloat16",
        "`--backend`='tgi' must be one of auto, huggingface, vllm",
        "`--max-model-len`='0' must be a whole number of at least 1",
        "`--max-lora-rank`='5' must be one of 1, 8, 16",
        "`--lora-modules`='tuned' must be name=folder",
        '`--lora-modules`=\'{"name": "tuned"}\' must have a "name" and a "path"',
        "`--lora-modules`='{' is no JSON",
        "the name 'a' twice",
        "without `--enable-lora`",
    ]
    assert len(caught.value.mistakes) == len(expected)
    for mistake, words in zip(caught.value.mistakes, expected, strict=True):
        assert words in mistake
        assert "Fix: " in mistake


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"use_rslora": True, "rank_pattern": {}}, None),
        ({"r": 32}, "rank 32 is above `--max-lora-rank`=16. Fix: give --max-lora-rank=32."),
        ({"r": 33}, "Fix: give --max-lora-rank=64."),
        ({"r": 600}, "Fix: train it with a rank of at most 512."),
        ({"rank_pattern": {"q_proj": 24}}, "rank 24 is above"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save holds whole layers (lm_head)"),
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ],
)
def test_an_adapter_that_vllm_would_refuse_is_refused(change: dict[str, Any], words: str | None) -> None:
    problems = config_problems({**GOOD, **change}, max_rank=16)
    assert len(problems) == (0 if words is None else 1)
    assert words is None or words in problems[0]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"layers.0.q.lora_A.weight": (4, 64), "layers.0.q.lora_B.weight": (32, 4)}, None),
        ({"layers.0.q.lora_A.weight": (4, 128)}, "'layers.0.q' is 128 wide where the base model's is 64"),
        ({"layers.0.q.lora_B.weight": (64, 4)}, "is 64 wide where the base model's is 32. Fix: serve it with"),
        ({"layers.7.q.lora_A.weight": (4, 64)}, "no layer 'layers.7.q', which it adapts"),
        ({"layers.0.q.lora_embedding_A": (4, 64)}, "none of LoRA's two matrices"),
        ({}, "holds no tensor"),
    ],
)
def test_an_adapter_of_another_base_model_is_recognised(tensors: dict[str, tuple[int, ...]], words: str | None) -> None:
    named = {f"base_model.model.{name}": shape for name, shape in tensors.items()}
    problem = shape_problem(named, {"layers.0.q": (64, 32)}, "org/base")
    assert (problem is None) == (words is None)
    assert words is None or words in str(problem)


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        ((), ["a", "b"], (["a", "b"], "", False)),
        (("\n",), ["one", "\ntwo"], (["one"], "", True)),
        (("END",), ["the E", "N", "D of"], (["the "], "", True)),
        (("END",), ["the E", "N", "d"], (["the ", "ENd"], "", False)),
        (("END",), ["EE", "ND"], (["E"], "", True)),
        (("abab",), ["aba", "abab"], (["aba"], "", True)),
        (("xyz", "y"), ["wxy"], (["wx"], "", True)),
        (("END",), ["EN"], ([], "EN", False)),
    ],
)
def test_stop_strings_cut_at_the_first_one(
    stops: tuple[str, ...], pieces: Sequence[str], expected: tuple[list[str], str, bool]
) -> None:
    from llmtune_trainer.serve.generation import StopStrings  # torch, which the other rules do without

    filter_ = StopStrings(stops)
    passed = [text for piece in pieces if (text := filter_.feed(piece))]
    assert (passed, filter_.rest(), filter_.hit) == expected


def test_text_of_any_tokens_comes_in_pieces_without_loss(model: Path) -> None:
    from transformers import AutoTokenizer

    from llmtune_trainer.serve.generation import Detokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    draw = random.Random(0)
    sentences = ["Grüße, 世界! 🙂 naïve", *("" for _ in range(20))]
    for sentence in sentences:
        ids = tokenizer(sentence)["input_ids"] or [draw.randrange(len(tokenizer)) for _ in range(40)]
        detokenizer = Detokenizer(tokenizer, [])
        pieces = [detokenizer.add(token) for token in ids]
        assert not any(piece.endswith("\ufffd") for piece in pieces)
        assert "".join(pieces) + detokenizer.rest() == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_request_wins_over_the_models_defaults() -> None:
    request = CompletionRequest(model="m", prompt="p", top_p=0.5)
    sampling = request.sampling(16, {"top_p": 0.9, "temperature": 0.6})
    assert (sampling.top_p, sampling.temperature, sampling.top_k, sampling.greedy) == (0.5, 0.6, 0, False)
    assert CompletionRequest(model="m", prompt="p", temperature=0).sampling(16, {}).greedy


Fail = Callable[..., str]


@pytest.fixture
def fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fail:
    """Start the server in this process, where it must not come to listen; return what it says."""

    def run(*flags: str) -> str:
        log = tmp_path / "termination-log"
        assert main(["--port=0", *flags], {"LLMTUNE_TERMINATION_LOG": str(log)}) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: `--")
        assert "Fix: " in said
        assert said.count("\n") == 1
        assert log.read_text(encoding="utf-8") == said.removesuffix("\n")
        return said

    return run


@pytest.fixture(scope="session")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "adapter"
    tiny_adapter.build_adapter(model, folder)
    return folder


def test_a_missing_model_and_a_name_of_the_hub_are_folders_that_do_not_exist(fail: Fail, tmp_path: Path) -> None:
    assert f"`--model_dir`='{tmp_path}/no' does not exist" in fail("--model_dir", f"{tmp_path}/no")
    assert "`--model`='org/model' does not exist" in fail("--model=org/model")


def test_only_the_flag_for_the_hub_asks_the_hub(fail: Fail) -> None:
    """Which the tests keep offline."""
    assert "`--model_id`='no-org/no-model' is no local path, and the Hugging Face Hub could not be reached" in fail(
        "--model_id=no-org/no-model"
    )


def test_a_wrong_flag_costs_no_import_of_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "llmtune_trainer.serve", "--port=http"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "`--port`='http' must be a whole number" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert imported.isdisjoint({"torch", "transformers", "peft", "fastapi", "huggingface_hub"})


def test_a_taken_port_is_told_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([f"--port={port}", "--model_dir=/nowhere"], {}) == 1
    assert f"`--port`={port} cannot be listened at: Address already in use" in capsys.readouterr().err


def test_an_adapter_is_no_model(fail: Fail, model: Path, adapter: Path, tmp_path: Path) -> None:
    assert "is an adapter, not a model" in fail("--model_dir", str(adapter))
    both = shutil.copytree(model, tmp_path / "both")
    shutil.copy(adapter / "adapter_config.json", both)
    assert "holds an adapter beside the model" in fail("--model_dir", str(both))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 64}, "its rank 64 is above `--max-lora-rank`=16"),
        ({"bias": "lora_only", "use_dora": True}, "its bias is 'lora_only', which must be 'none'"),
        ("no file", "has no adapter_config.json"),
        ("no JSON", "has an adapter_config.json that is no JSON"),
        ("cut off", "cannot be loaded: SafetensorError"),
        ("no folder", "does not exist"),
    ],
    ids=str,
)
def test_an_adapter_that_cannot_be_loaded_keeps_the_server_from_starting(
    fail: Fail, model: Path, adapter: Path, tmp_path: Path, change: Any, words: str
) -> None:
    broken = shutil.copytree(adapter, tmp_path / "adapter")
    config = broken / "adapter_config.json"
    if change == "no file":
        config.unlink()
    elif change == "no JSON":
        config.write_text("{", encoding="utf-8")
    elif change == "cut off":
        weights = broken / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif change == "no folder":
        shutil.rmtree(broken)
    else:
        config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | change), encoding="utf-8")
    said = fail("--model_dir", str(model), "--enable-lora", f"--lora-modules=tuned={broken}")
    assert f"`--lora-modules` tuned={broken} " in said
    assert words in said


def test_an_adapter_and_a_context_that_do_not_fit_the_model_are_refused(
    fail: Fail, model: Path, adapter: Path, tmp_path: Path
) -> None:
    deeper = shutil.copytree(model, tmp_path / "shallow")
    config = json.loads((deeper / "config.json").read_text(encoding="utf-8"))
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}), encoding="utf-8")
    said = fail("--model_dir", str(deeper), "--enable-lora", f"--lora-modules=tuned={adapter}")
    assert "the base model has no layer 'model.layers.1." in said
    assert f"the base model it was trained on ({model})" in said
    assert "`--max-model-len`=999 is above the model's own limit of 256" in fail(
        "--model_dir", str(model), "--max-model-len=999"
    )


def test_weights_that_are_missing_are_not_made_up(fail: Fail, model: Path, tmp_path: Path) -> None:
    deeper = shutil.copytree(model, tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text(encoding="utf-8"))
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}), encoding="utf-8")
    assert "has no weights for 9 of its tensors (model.layers.2." in fail("--model_dir", str(deeper))
    weights = deeper / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"`--model_dir`='{deeper}' cannot be loaded: " in fail("--model_dir", str(deeper))
