from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.result import (
    TERMINATION_LIMIT,
    address_of,
    check_destination,
    failure,
    fitted,
    store,
    summary,
    write_termination_log,
)

MANIFEST = {
    "base_model": "org/model",
    "parameters": {"learning_rate": 2e-4, "lora_target_modules": ["q_proj", "v_proj"]},
    "evaluation": {"fingerprint": "0123456789abcdef", "rows": 12},
}


@pytest.mark.parametrize("letter", ["a", "é", "語", '"'])
def test_the_summary_fits_and_keeps_its_numbers(letter: str) -> None:
    samples = dict.fromkeys(("prompt", "before", "after"), letter * 10_000)
    text = fitted(summary({"eval_loss": 2.5}, "s3://b/p", samples, MANIFEST, diverged=False), TERMINATION_LIMIT)
    assert len(text.encode()) <= TERMINATION_LIMIT
    content = json.loads(text)
    assert content["metrics"] == {"eval_loss": 2.5}
    assert content["manifest"] == MANIFEST
    assert content["samples"]["after"].endswith("…")


def test_even_a_monstrous_manifest_fits_and_keeps_its_numbers() -> None:
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(500)]
    manifest = {"base_model": "/" + '"' * 4000, "parameters": {"lora_target_modules": names, "seed": 7}, "steps": 80}
    text = fitted(summary({"eval_loss": 2.5}, "s3://b/p", None, manifest, diverged=False), TERMINATION_LIMIT)
    assert len(text.encode()) <= TERMINATION_LIMIT
    content = json.loads(text)
    assert content["metrics"] == {"eval_loss": 2.5}
    assert (content["manifest"]["steps"], content["manifest"]["parameters"]["seed"]) == (80, 7)


def test_a_short_summary_is_not_cut() -> None:
    content = summary({"eval_loss": 2.5}, None, {"prompt": "p", "before": "b", "after": "a"}, {}, diverged=False)
    assert json.loads(fitted(content, TERMINATION_LIMIT)) == content


def test_the_termination_log_is_written_where_the_environment_says(tmp_path: Path) -> None:
    environ = {"LLMTUNE_TERMINATION_LOG": str(tmp_path / "log")}
    write_termination_log(failure("first"), environ)
    write_termination_log(failure("second"), environ, keep_earlier=True)
    assert json.loads((tmp_path / "log").read_text(encoding="utf-8"))["error"] == "first"


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_text("half", encoding="utf-8")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        store("--output_dir", str(tmp_path / "out"), fail, {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_within_replaces_that_of_the_run_before(tmp_path: Path) -> None:
    for name in ("old", "new"):

        def save(folder: Path, name: str = name) -> None:
            (folder / "merged").mkdir()
            (folder / "merged" / name).touch()

        store("--output_dir", str(tmp_path / "out"), save, {}, tmp_path)
    assert [entry.name for entry in (tmp_path / "out" / "merged").iterdir()] == ["new"]


def _store(folder: Path, *names: str) -> None:
    def save(unfinished: Path) -> None:
        for name in names:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).touch()

    store("--output_dir", str(folder), save, {}, folder.parent)


def _names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_second_result_removes_the_files_of_the_first_and_no_others(tmp_path: Path) -> None:
    output = tmp_path / "out"
    _store(output, "adapter_config.json", "merged/deep/model", "tokenizer.json")
    (output / ".checkpoints").mkdir()
    for own in ("notes.txt", ".checkpoints/state", "merged/notes.txt"):
        (output / own).touch()
    _store(output, "model.safetensors", "tokenizer.json")
    kept = {"notes.txt", ".checkpoints/state", "merged/notes.txt"}
    assert _names(output) == kept | {"model.safetensors", "tokenizer.json", "result.json"}
    assert not (output / "merged" / "deep").exists()
    assert json.loads((output / "result.json").read_text(encoding="utf-8"))["files"] == [
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize(
    "listed", ["", "[]", "{}", '{"files": 1}', '{"files": [1]}', '{"files": ["%s", "../a", "b/a"]}']
)
def test_no_list_of_files_leads_out_of_the_folder(tmp_path: Path, listed: str) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "a").touch()
    (output / "b").symlink_to(tmp_path)
    (output / "result.json").write_text(listed.replace("%s", str(tmp_path / "a")), encoding="utf-8")
    _store(output, "c")
    assert _names(output) == {"c", "result.json"}
    assert (tmp_path / "a").is_file()


def test_a_destination_that_cannot_be_written_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for destination in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "hf://org/model"):
        with pytest.raises(BadInputError, match=r"--output_dir.*cannot be written to"):
            check_destination("--output_dir", destination)
    check_destination("--output_dir", str(tmp_path / "new" / "folder"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_address_of_a_result_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert address_of("out") == address_of(f"file://{tmp_path}/out") == str(tmp_path / "out")
    assert address_of("s3://bucket/out/") == "s3://bucket/out"


def test_nothing_heavy_is_imported_before_the_settings_are_checked() -> None:
    code = (
        "import sys, llmtune_trainer.__main__\n"
        "heavy = {'torch', 'transformers', 'datasets', 'boto3', 'botocore', 'huggingface_hub', 'numpy'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "set()"
