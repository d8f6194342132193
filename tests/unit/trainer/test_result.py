from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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

# Stores a result over an earlier one in a child that is killed before its nth change of the disk, for each n; then one
# more. A line for each n: what lay there after the kill, at the end, and beside the folder.
KILLED = """
import json, os, sys
from pathlib import Path
from llmtune_trainer.result import store
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod"}
top, exists = Path(sys.argv[1]), sys.argv[2] == "over"
def put(folder, *names):
    def save(unfinished):
        for name in names:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_text(f"of {names[0]}")
    store("--output_dir", str(folder), save, {"of": names[0]}, top)
def files(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
def kill_before(nth):
    left = [nth]
    def count(event, arguments):
        if event in CHANGES or event == "open" and arguments[1] in ("w", "wb"):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
    sys.addaudithook(count)
for nth in range(1, 1000):
    folder = top / str(nth) / "trial-1"
    neighbour = folder.parent / ".unfinished-trial-1-b-abc"
    neighbour.mkdir(parents=True)
    if exists:
        put(folder, "a", "both", "merged/a", "deep/er/a")
        (folder / "merged" / "mine").write_text("mine")
        (folder / "c").write_text("mine")
    if (child := os.fork()) == 0:
        kill_before(nth)
        put(folder, "b", "both", "merged/b", "c")
        os._exit(0)
    done = os.waitpid(child, 0)[1] == 0
    killed = files(folder) if folder.exists() else {}
    put(folder, "d", "both")
    beside = sorted(path.name for path in folder.parent.iterdir())
    empty = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())]
    print(json.dumps([killed, files(folder), beside, empty]))
    if done:
        break
"""

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


def test_what_is_told_of_the_data_is_cut_before_what_others_compute_with() -> None:
    row = "a row that is malformed in many words " * 60
    data = {"malformed": {"rows": 1, "first": row}, "remarks": [f"malformed rows left out: 1; the first: {row}"]}
    address = "s3://bucket/" + "/".join(["folder"] * 30)
    manifest = {**MANIFEST, "dataset": address, "data": data}
    content = json.loads(fitted(summary({"eval_loss": 2.5}, address, None, manifest, diverged=False), 2000))
    assert (content["artifact_uri"], content["manifest"]["dataset"]) == (address, address)
    assert content["manifest"]["data"]["malformed"]["rows"] == 1
    assert content["manifest"]["data"]["remarks"][0].endswith("…")


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


def _killed_at_each_step(top: Path, how: str) -> list[Any]:
    done = subprocess.run([sys.executable, "-c", KILLED, top, how], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _is_whole(found: dict[str, str], of: str) -> bool:
    listed = json.loads(found["result.json"])
    return listed["of"] == of and all(found.get(name) == f"of {of}" for name in listed["files"])


def test_whenever_a_store_is_killed_the_next_removes_what_it_left_and_nothing_of_the_users(tmp_path: Path) -> None:
    steps = _killed_at_each_step(tmp_path, "over")
    assert len(steps) > 20
    marked = [_is_whole(killed, "a") or _is_whole(killed, "b") for killed, *_ in steps if "result.json" in killed]
    assert all(marked)
    assert 1 < len(marked) < len(steps)  # the others were killed between the two marks
    for killed, last, beside, empty in steps:
        # The user's `c` is theirs until there is a complete result with a file of that name.
        users = {"merged/mine"} | (set() if "result.json" in killed and _is_whole(killed, "b") else {"c"})
        assert set(last) == users | {"d", "both", "result.json"}
        assert _is_whole(last, "d")
        assert last["merged/mine"] == "mine"
        assert beside == [".unfinished-trial-1-b-abc", "trial-1"]
        assert empty == []


def test_a_first_result_that_is_killed_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    for killed, last, beside, _ in _killed_at_each_step(tmp_path, "first"):
        assert killed == {} or _is_whole(killed, "b")
        assert set(last) == {"d", "both", "result.json"}
        assert beside == [".unfinished-trial-1-b-abc", "trial-1"]


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
