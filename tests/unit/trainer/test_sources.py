from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmtune_trainer.addresses import hub_name, local_path, public_name
from llmtune_trainer.cache import Cache
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import Fetched, fetch_adapter, fetch_dataset, fetch_model


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with closing(Cache(tmp_path / "cache", print)) as made:
        yield made


def of(model: Path | str = "-", data: Path | str = "-", adapter: Path | None = None) -> Settings:
    adapter_given = None if adapter is None else str(adapter)
    return Settings(model_name_or_path=str(model), dataset_name=str(data), adapter=adapter_given)


@pytest.fixture
def complete_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_folder_is_used_where_it_lies(complete_model: Path, cache: Cache, scheme: str) -> None:
    assert fetch_model(of(f"{scheme}{complete_model}"), cache).path == complete_model


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_model_names_what_it_lacks(complete_model: Path, cache: Cache, missing: str) -> None:
    (complete_model / missing).unlink()
    with pytest.raises(BadInputError, match=rf"--model_name_or_path.*has no .*{missing.split('.')[-1]}"):
        fetch_model(of(complete_model), cache)


def test_a_folder_of_gguf_weights_says_how_to_convert_them(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "model.Q4_1.gguf").touch()
    with pytest.raises(BadInputError, match=r"only GGUF weights.*gguf_file=.*quantization_config"):
        fetch_model(of(tmp_path), cache)


def test_an_adapter_names_its_base_model(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"is an adapter, not a model\. Fix: give its base model, 'org/base'"):
        fetch_model(of(tmp_path), cache)


def test_a_wrong_path_shows_what_lies_where_it_ends(complete_model: Path, tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(BadInputError, match=r"does not exist \(.* holds model\)\. Fix: correct the path, or mount"):
        fetch_model(of(tmp_path / "modle"), cache)


@pytest.mark.parametrize("source", ["gs://bucket/data", "https://host/data.jsonl"])
def test_an_unknown_scheme_names_the_known_ones(source: str, cache: Cache) -> None:
    with pytest.raises(BadInputError, match=r"unknown scheme.*hf://org/name or s3://bucket/prefix"):
        fetch_dataset(of(data=source), cache)


def test_an_s3_address_without_a_bucket_is_refused(cache: Cache) -> None:
    with pytest.raises(BadInputError, match=r"--dataset_name.*names no bucket"):
        fetch_dataset(of(data="s3:///prefix"), cache)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://org/model", "org/model"),
        ("hf://org/model@v1", "org/model"),
        ("org/model", "org/model"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
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


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("hf://org/data", ("org/data", None)),
        ("org/data@v1", ("org/data", "v1")),
        ("hf://datasets/org/data@refs/pr/1", ("org/data", "refs/pr/1")),
    ],
)
def test_a_name_on_the_hub_may_have_a_revision(source: str, found: tuple[str, str | None]) -> None:
    assert hub_name(source) == found


# --- the version of what lies here --------------------------------------------------------------------------


def test_the_version_of_files_follows_names_and_contents(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "data" / "train.jsonl"
    file.parent.mkdir()

    def versions(content: str) -> tuple[str, str]:
        file.write_text(content, encoding="utf-8")
        return fetch_dataset(of(data=file.parent), cache).version, fetch_dataset(of(data=file), cache).version

    folder, single = versions("one")
    assert folder == single
    (file.parent / ".cache").write_text("x", encoding="utf-8")
    assert versions("one") == (folder, single)
    assert folder not in versions("two")
    (file.parent / "eval.jsonl").write_text("three", encoding="utf-8")
    assert versions("one")[0] not in {folder, single}


def test_a_model_is_told_from_another_wherever_it_lies(complete_model: Path, tmp_path: Path, cache: Cache) -> None:
    copy = shutil.copytree(complete_model, tmp_path / "copy")
    first = fetch_model(of(complete_model), cache)
    assert fetch_model(of(copy), cache) == Fetched(copy, first.version)
    (copy / "model.safetensors").write_text("[]", encoding="utf-8")  # as long as before
    assert fetch_model(of(copy), cache).version != first.version


def test_the_files_are_read_once_for_all_runs_until_one_changes(
    complete_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def digest(file: Path) -> str:
        read.append(file.name)
        return file.read_text(encoding="utf-8")

    monkeypatch.setattr("llmtune_trainer.sources.sha256_of", digest)

    def version() -> str:
        with closing(Cache(tmp_path / "cache", print, own=tmp_path / "own")) as cache:
            return fetch_model(of(complete_model), cache).version

    first = version()
    assert sorted(read) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert version() == first
    assert len(read) == 3
    os.utime(complete_model / "config.json", (1, 1))
    assert version() == first
    assert len(read) == 6


def test_an_incomplete_adapter_names_what_it_lacks(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(BadInputError, match=r"`--adapter`=.* has no adapter_config\.json\. Fix: give the folder"):
        fetch_adapter(of(adapter=tmp_path), cache)
