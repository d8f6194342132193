"""Models and data from the Hub, by its real client against a stand-in on loopback; nothing here needs torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download

from hub_server import Hub, running_hub
from llmtune_trainer.cache import Cache, CacheFullError
from llmtune_trainer.cache_entry import DamagedError
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import Fetched, fetch_adapter, fetch_dataset, fetch_model

MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": bytes(range(256)) * 4000}
DATA = {"README.md": b"#", "data/train.jsonl": b'{"text": "a"}\n', "data/test [1].jsonl": b'{"text": "b"}\n'}

# One of several first users, as a process of its own.
USER = """
import sys
from pathlib import Path
from llmtune_trainer.cache import Cache
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import fetch_model
root, go = map(Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists():
    pass
settings = Settings(model_name_or_path="hf://org/model", dataset_name="-")
found = fetch_model(settings, Cache(root, print, own=root / "own"))
print((found.path / "model.safetensors").read_bytes() == bytes(range(256)) * 4000, found.revision == found.version)
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        server.model("org/model", MODEL)
        server.dataset("org/data", DATA)
        patched = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }
        for name, value in patched.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def says() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, says: list[str]) -> Iterator[Callable[[], Cache]]:
    caches = []

    def make() -> Cache:
        caches.append(Cache(tmp_path / "cache", says.append, own=tmp_path / "own"))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def of(model: str = "hf://org/model", data: str = "hf://org/data", **others: Any) -> Settings:
    return Settings(model_name_or_path=model, dataset_name=data, **others)


def contents(fetched: Fetched) -> dict[str, bytes]:
    files = (file for file in fetched.path.rglob("*") if file.is_file())
    return {file.relative_to(fetched.path).as_posix(): file.read_bytes() for file in files}


def hide(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")


# --- what is downloaded, and how often ----------------------------------------------------------------------


def test_a_model_comes_whole_and_once(hub: Hub, opened: Callable[[], Cache]) -> None:
    commit = hub.repositories["models", "org/model"].revisions["main"]
    first = fetch_model(of(), opened())
    assert contents(first) == MODEL
    assert first.version == first.revision == commit
    hub.requests.clear()
    assert fetch_model(of(), opened()) == first
    assert hub.requests == ["GET /api/models/org/model"]


def test_a_data_set_comes_with_its_folders(hub: Hub, opened: Callable[[], Cache]) -> None:
    assert contents(fetch_dataset(of(), opened())) == DATA
    assert contents(fetch_dataset(of(data="hf://datasets/org/data"), opened())) == DATA
    assert sorted(hub.downloads()) == sorted(DATA)


def test_a_pinned_commit_that_is_there_asks_nothing(hub: Hub, opened: Callable[[], Cache]) -> None:
    commit = hub.repositories["models", "org/model"].revisions["main"]
    fetch_model(of(), opened())
    hub.requests.clear()
    assert fetch_model(of(f"hf://org/model@{commit}"), opened()).revision == commit
    assert fetch_model(of(model_revision=commit), opened()).revision == commit
    assert hub.requests == []


def test_another_commit_is_another_version(hub: Hub, opened: Callable[[], Cache]) -> None:
    first = fetch_dataset(of(), opened())
    hub.repositories["datasets", "org/data"].commit({**DATA, "README.md": b"##"}, "main")
    second = fetch_dataset(of(), opened())
    assert first.version != second.version
    assert (contents(first)["README.md"], contents(second)["README.md"]) == (b"#", b"##")


def test_a_revision_is_named_in_the_address(hub: Hub, opened: Callable[[], Cache]) -> None:
    hub.repositories["datasets", "org/data"].commit({"rows.jsonl": b"{}"}, "refs/pr/1")
    assert contents(fetch_dataset(of(data="hf://org/data@refs/pr/1"), opened())) == {"rows.jsonl": b"{}"}
    with pytest.raises(BadInputError, match=r"names another revision than `--model_revision`='v1'"):
        fetch_model(of("hf://org/model@v2", model_revision="v1"), opened())


def test_weights_that_are_not_trained_from_stay_where_they_are(hub: Hub, opened: Callable[[], Cache]) -> None:
    others = {"model.gguf": b"g", "onnx/model.onnx": b"o", "pytorch_model.bin": b"p", "original/x.pth": b"x"}
    hub.model("org/model", {**MODEL, **others})
    assert contents(fetch_model(of(), opened())) == MODEL
    hub.model("org/model", {**others, "config.json": b"{}", "tokenizer.json": b"{}"})
    assert "pytorch_model.bin" in contents(fetch_model(of(), opened()))


def test_eight_first_users_make_one_download(hub: Hub, tmp_path: Path) -> None:
    environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    arguments = [sys.executable, "-c", USER, str(tmp_path / "cache"), str(tmp_path / "go")]
    users = [subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    try:
        for user in users:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
        (tmp_path / "go").touch()
        answers = [user.communicate(timeout=90)[0].splitlines()[-1] for user in users]
    finally:
        for user in users:
            user.kill()
            user.communicate()
    assert answers == ["True True"] * 8
    assert sorted(hub.downloads()) == sorted(MODEL)


def test_what_the_clients_own_cache_holds_is_used_where_it_lies(
    hub: Hub, opened: Callable[[], Cache], tmp_path: Path
) -> None:
    snapshot = snapshot_download("org/model")
    hub.requests.clear()
    assert fetch_model(of(), opened()).path == Path(snapshot)
    assert hub.downloads() == []


# --- what goes wrong on the way -----------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    hub: Hub, opened: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    files = {**MODEL, "model.safetensors": bytes(range(256)) * 80_000}
    hub.model("org/model", files)
    hub.breaks_off["model.safetensors"] = 15_000_000
    assert contents(fetch_model(of(), opened())) == files
    assert hub.ranges == [f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-"]


def test_a_large_file_that_was_damaged_on_the_way_is_fetched_again(
    hub: Hub, opened: Callable[[], Cache], says: list[str]
) -> None:
    hub.damages["model.safetensors"] = 1
    assert contents(fetch_model(of(), opened())) == MODEL
    assert any("model.safetensors of model/" in line and "fetched once more" in line for line in says)
    assert hub.downloads().count("model.safetensors") == 2


def test_a_large_file_that_is_always_damaged_ends_the_run(hub: Hub, opened: Callable[[], Cache]) -> None:
    hub.damages["model.safetensors"] = 9
    with pytest.raises(DamagedError, match=r"model\.safetensors of .* another sha256 .*Fix: run it again"):
        fetch_model(of(), opened())


def test_files_that_a_predecessor_completed_are_kept(hub: Hub, opened: Callable[[], Cache]) -> None:
    hub.refused_files.add("tokenizer.json")
    with pytest.raises(BadInputError, match=r"was refused by the Hugging Face Hub \(403\)"):
        fetch_model(of(), opened())
    assert sorted(hub.downloads()) == ["config.json", "model.safetensors"]
    hub.refused_files.clear()
    hub.requests.clear()
    assert contents(fetch_model(of(), opened())) == MODEL
    assert hub.downloads() == ["tokenizer.json"]


def test_a_model_that_does_not_fit_is_refused_before_it_is_downloaded(
    hub: Hub, opened: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"total": 10**6, "free": 1000})())
    with pytest.raises(CacheFullError, match=r"1000\.0 KiB more are needed and 1000 bytes are free"):
        fetch_model(of(), opened())
    assert hub.downloads() == []


# --- without the Hub ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["offline", "unreachable"])
def test_without_the_hub_what_was_fetched_before_is_used(
    hub: Hub,
    opened: Callable[[], Cache],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    says: list[str],
    way: str,
) -> None:
    first = fetch_model(of(), opened())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "of another node"))
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hide(hub, monkeypatch)
    assert fetch_model(of(model_revision=first.revision), opened()) == first
    assert fetch_model(of(), opened()) == first  # main was this commit when it was asked last
    assert f"The Hub cannot be reached; org/model is taken at {first.revision}, as it was told last." in says
    with pytest.raises(BadInputError, match=r"`--dataset_name`='hf://org/data' .* could not be reached.*Fix: give the"):
        fetch_dataset(of(), opened())


def test_offline_the_clients_own_cache_is_enough(
    hub: Hub, opened: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshot_download("org/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model(of(), opened()).path == Path(snapshot)


# --- repositories that are not for everybody ----------------------------------------------------------------

SECRET = "hf_0123456789abcdefghij"


def test_a_private_repository_needs_its_token(
    hub: Hub, opened: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["models", "org/model"].token = SECRET
    with pytest.raises(BadInputError, match=r"for a private repository, set HF_TOKEN from a Secret .*`hub_conn_id`"):
        fetch_model(of(), opened())
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert contents(fetch_model(of(), opened())) == MODEL


def gated(hub: Hub) -> None:
    hub.repositories["models", "org/model"].gated = True


def unknown(hub: Hub) -> None:
    del hub.repositories["models", "org/model"]


def expired(hub: Hub) -> None:
    hub.refused_tokens.add(SECRET)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (gated, r"is a gated repository .*accept its terms there, and set HF_TOKEN from a Secret"),
        (unknown, r"is neither a local path nor a repository .*Fix: correct the name, or"),
        (expired, r"was refused by the Hugging Face Hub \(401\): the token is wrong, has expired"),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_what_may_not_be_read_is_told_without_the_token(
    hub: Hub,
    opened: Callable[[], Cache],
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[Hub], None],
    words: str,
    pinned: bool,
) -> None:
    commit = hub.repositories["models", "org/model"].revisions["main"]
    state(hub)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(BadInputError, match=rf"`--model_name_or_path`='org/model' {words}") as raised:
        fetch_model(of("org/model", model_revision=commit if pinned else None), opened())
    assert SECRET not in str(raised.value)


def test_an_unknown_revision_is_told(hub: Hub, opened: Callable[[], Cache]) -> None:
    with pytest.raises(BadInputError, match=r"has no revision 'v9'\. Fix: correct the revision"):
        fetch_dataset(of(data="hf://org/data@v9"), opened())


def test_a_name_that_is_none_is_told(hub: Hub, opened: Callable[[], Cache]) -> None:
    with pytest.raises(BadInputError, match=r"`--dataset_name`='hf://org/a/b' is neither"):
        fetch_dataset(of(data="hf://org/a/b"), opened())


def test_an_adapter_comes_from_the_hub_too(hub: Hub, opened: Callable[[], Cache]) -> None:
    files = {"adapter_config.json": json.dumps({}).encode(), "adapter_model.safetensors": b"a"}
    hub.model("org/adapter", files)
    assert contents(fetch_adapter(of(adapter="hf://org/adapter"), opened())) == files
    hub.model("org/model", {"config.json": b"{}"})
    with pytest.raises(BadInputError, match=r"`--adapter`='org/model' has no adapter_config.json"):
        fetch_adapter(of(adapter="org/model"), opened())
