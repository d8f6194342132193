from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.sources import fetch_dataset, fetch_model, local_path, public_name


@pytest.fixture
def complete_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_folder_is_used_where_it_lies(complete_model: Path, tmp_path: Path, scheme: str) -> None:
    assert fetch_model(f"{scheme}{complete_model}", None, tmp_path) == complete_model


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_model_names_what_it_lacks(complete_model: Path, tmp_path: Path, missing: str) -> None:
    (complete_model / missing).unlink()
    with pytest.raises(BadInputError, match=rf"--model_name_or_path.*has no .*{missing.split('.')[-1]}"):
        fetch_model(str(complete_model), None, tmp_path)


def test_a_folder_of_gguf_weights_says_how_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_1.gguf").touch()
    with pytest.raises(BadInputError, match=r"only GGUF weights.*gguf_file=.*quantization_config"):
        fetch_model(str(tmp_path), None, tmp_path)


def test_an_adapter_names_its_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"is an adapter, not a model\. Fix: give its base model, 'org/base'"):
        fetch_model(str(tmp_path), None, tmp_path)


def test_a_wrong_path_shows_what_lies_where_it_ends(complete_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"does not exist \(.* holds model\)\. Fix: correct the path, or mount"):
        fetch_model(str(tmp_path / "modle"), None, tmp_path)


@pytest.mark.parametrize("source", ["gs://bucket/data", "https://host/data.jsonl"])
def test_an_unknown_scheme_names_the_known_ones(source: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"unknown scheme.*hf://org/name or s3://bucket/prefix"):
        fetch_dataset(source, tmp_path)


def test_an_s3_address_without_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--dataset_name.*names no bucket"):
        fetch_dataset("s3:///prefix", tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [("hf://org/model", "org/model"), ("org/model", "org/model"), ("s3://bucket/model", "s3://bucket/model")],
)
def test_others_find_the_model_by_its_public_name(source: str, name: str) -> None:
    assert public_name(source) == name


def test_the_public_name_of_a_folder_is_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert public_name("model") == public_name("file://" + str(tmp_path / "model")) == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "path"), [("file:///a/b", Path("/a/b")), ("a/b", Path("a/b")), ("s3://a/b", None), ("hf://a/b", None)]
)
def test_only_paths_are_local(source: str, path: Path | None) -> None:
    assert local_path(source) == path
