"""Every format of rows from every kind of source gives the same tokens; and what becomes of rows on the way."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from huggingface_hub import constants
from moto.server import ThreadedMotoServer
from pyarrow import parquet
from transformers import AutoTokenizer

from hub_server import Hub, running_hub
from llmtune_trainer.cache import Cache
from llmtune_trainer.data.prepare import Prepared, prepare
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings, parse_settings
from llmtune_trainer.sources import Fetched, fetch_dataset, fetch_model

Row = dict[str, Any]
Rows = list[Row]
PAIRS = [
    (f"What does the {animal} eat?", f"The {animal} does eat {food}.")
    for animal in ("cat", "owl", "bée")
    for food in ("milk", 'grass, "mice"\nand eggs')
]
TRAIN, EVAL = PAIRS[:4], PAIRS[4:]


# --- formats: how a question and its answer are written ------------------------------------------------------


def _user(question: str) -> Row:
    return {"role": "user", "content": question}


def _assistant(answer: str) -> Row:
    return {"role": "assistant", "content": answer}


def _template(tokenizer: Any, *turns: Row, opens: bool = False) -> str:
    return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=opens))


def _tokens(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    prompt = tokenizer(_template(tokenizer, _user(question), opens=True), add_special_tokens=False)["input_ids"]
    whole = tokenizer(_template(tokenizer, _user(question), _assistant(answer)), add_special_tokens=False)["input_ids"]
    return whole, [-100] * len(prompt) + whole[len(prompt) :]


def _of_text(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    tokens = [*tokenizer(f"{question} {answer}")["input_ids"], tokenizer.eos_token_id]
    return tokens, tokens


Maker = Callable[[Any, str, str], Row]
FORMATS: dict[str, tuple[Maker, Callable[..., Any]]] = {
    "text": (lambda _, q, a: {"text": f"{q} {a}"}, _of_text),
    "prompt+completion": (lambda _, q, a: {"prompt": q, "completion": a}, _tokens),
    "prompt+completion of messages": (lambda _, q, a: {"prompt": [_user(q)], "completion": [_assistant(a)]}, _tokens),
    "messages": (lambda _, q, a: {"messages": [_user(q), _assistant(a)], "id": 7}, _tokens),
    "conversations": (
        lambda _, q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        _tokens,
    ),
    "instruction+output": (lambda _, q, a: {"instruction": q, "input": "", "output": a, "text": "other"}, _tokens),
    "input_ids": (lambda t, q, a: {"input_ids": _tokens(t, q, a)[0]}, lambda t, q, a: (_tokens(t, q, a)[0],) * 2),
    "input_ids with labels": (
        lambda t, q, a: dict(zip(("input_ids", "labels"), _tokens(t, q, a), strict=True)),
        _tokens,
    ),
    "input_ids with a mask": (
        lambda t, q, a: {
            "input_ids": _tokens(t, q, a)[0],
            "completion_mask": [int(label != -100) for label in _tokens(t, q, a)[1]],
        },
        _tokens,
    ),
}


# --- sources: how rows are stored, and where ------------------------------------------------------------------


def _jsonl(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _zipped(file: Path, rows: Rows) -> None:
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def _json(file: Path, rows: Rows) -> None:
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


def _csv(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8", newline="") as content:
        writer = csv.DictWriter(content, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
            )


def _parquet(file: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def _arrow(file: Path, rows: Rows) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": _jsonl, "jsonl.gz": _zipped, "json": _json, "csv": _csv, "parquet": _parquet, "arrow": _arrow,
}  # fmt: skip


def _tree(folder: Path, train: Rows, held_out: Rows, form: str) -> Path:
    if form == "save_to_disk":
        DatasetDict({"train": Dataset.from_list(train), "eval": Dataset.from_list(held_out)}).save_to_disk(str(folder))
        return folder
    folder.mkdir(parents=True)
    for name, rows in (("train", train), ("eval", held_out)):
        WRITERS[form](folder / f"{name}.{form}", rows)
    return folder


SOURCES = [
    *(("folder", form) for form in (*WRITERS, "save_to_disk")),
    ("file://", "csv"),
    ("s3://", "parquet"),
    ("s3://", "save_to_disk"),
    ("hf://", "parquet"),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


@pytest.fixture
def publish(endpoint: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], str]:
    """Return a function that puts a folder where a source is, and returns its address."""
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    patched: dict[str, Any] = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
    }
    for variable, value in aws.items():
        monkeypatch.setenv(variable, value)
    for constant, patch in patched.items():
        monkeypatch.setattr(constants, constant, patch)

    def put(source: str, folder: Path) -> str:
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        name = f"{tmp_path.name}/data".lower()
        if source == "s3://":
            client = boto3.client("s3")
            client.create_bucket(Bucket="llm")
            for path, file in files.items():
                client.upload_file(str(file), "llm", f"{name}/{path}")
            return f"s3://llm/{name}"
        if source == "hf://":
            hub.dataset(name, {path: file.read_bytes() for path, file in files.items()})
            return f"hf://{name}"
        return f"file://{folder}" if source == "file://" else str(folder)

    return put


@pytest.fixture(scope="session")
def tokenizer(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


Preparing = Callable[..., Prepared]


@pytest.fixture
def preparing(model: Path, tmp_path: Path, said: list[str]) -> Iterator[Preparing]:
    """Fetch and prepare as a run does."""
    cache = Cache(tmp_path / "cache", said.append, own=tmp_path / "own")

    def run(address: Path | str, *, of: Path = model, only_eval: bool = False, **given: Any) -> Prepared:
        settings = settings_of(of, address, **given)
        data = fetch_dataset(settings, cache)
        return prepare(settings, data, fetch_model(settings, cache), cache, said.append, only_eval=only_eval)

    yield run
    cache.close()


@pytest.fixture
def said() -> list[str]:
    return []


def settings_of(model: Path, address: Path | str, **given: Any) -> Settings:
    values = {"model_name_or_path": model, "dataset_name": address, **given}
    return parse_settings([f"--{name}={value}" for name, value in values.items()], {})


def tokens_in(dataset: Any) -> list[tuple[list[int], list[int]]]:
    return sorted((row["input_ids"], row["labels"]) for row in dataset)


# --- the table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("source", "form"), SOURCES, ids=[f"{source} {form}" for source, form in SOURCES])
def test_the_same_tokens_come_from_everywhere(
    preparing: Preparing, publish: Any, tokenizer: Any, tmp_path: Path, source: str, form: str, name: str
) -> None:
    make, expect = FORMATS[name]
    train, held_out = ([make(tokenizer, *pair) for pair in pairs] for pairs in (TRAIN, EVAL))
    prepared = preparing(publish(source, _tree(tmp_path / "data", train, held_out, form)))
    assert tokens_in(prepared.train) == sorted(expect(tokenizer, *pair) for pair in TRAIN)
    assert tokens_in(prepared.eval) == sorted(expect(tokenizer, *pair) for pair in EVAL)
    assert prepared.report["format"] == name.partition(" ")[0]
    assert prepared.report["rows"] == {"train": 4, "eval": 2}
    assert prepared.train["length"] == [len(tokens) for tokens in prepared.train["input_ids"]]
    assert prepared.train.cache_files, "not memory-mapped"


def test_a_data_set_on_the_hub_may_have_configurations(
    preparing: Preparing, publish: Any, tokenizer: Any, tmp_path: Path
) -> None:
    make = FORMATS["prompt+completion"][0]
    for name, pairs in (("one", TRAIN), ("two", EVAL)):
        train, held_out = ([make(None, *pair) for pair in some] for some in (pairs, PAIRS[:1]))
        _tree(tmp_path / "data" / name, train, held_out, "csv")
    stated = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("one", "two"))
    (tmp_path / "data" / "README.md").write_text(f"---\nconfigs:\n{stated}---\n")
    address = publish("hf://", tmp_path / "data")
    for name, pairs in (("one", TRAIN), ("two", EVAL)):
        assert tokens_in(preparing(address, dataset_config=name).train) == sorted(
            _tokens(tokenizer, *pair) for pair in pairs
        )
    with pytest.raises(
        BadInputError, match=r"several configurations: one, two\. Fix: choose one, such as --dataset_config one"
    ):
        preparing(address)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # its own, about its own defaults
def test_tokens_and_labels_are_those_of_trl(preparing: Preparing, model: Path, data: Path, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    turns = [{"prompt": [_user(row["prompt"])], "completion": [_assistant(row["completion"])]} for row in rows]
    theirs = SFTTrainer(
        model=str(model),
        args=SFTConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(turns),
    )
    assert tokens_in(preparing(data).train) == tokens_in(theirs.train_dataset)


# --- once for all ---------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    make = FORMATS["prompt+completion"][0]
    return _tree(
        tmp_path / "pairs", [make(None, *pair) for pair in TRAIN], [make(None, *pair) for pair in EVAL], "jsonl"
    )


def test_whoever_comes_second_reads_no_raw_file(preparing: Preparing, model: Path, pairs: Path, tmp_path: Path) -> None:
    first = preparing(pairs)
    data, models = Fetched(pairs, "unchanged"), Fetched(model, "m")
    cache = Cache(tmp_path / "other", print)
    prepare(settings_of(model, pairs), data, models, cache, print)
    shutil.rmtree(pairs)
    second = prepare(
        settings_of(model, pairs, learning_rate=1, seed=7, per_device_train_batch_size=1), data, models, cache, print
    )
    assert (tokens_in(second.train), tokens_in(second.eval)) == (tokens_in(first.train), tokens_in(first.eval))
    assert (second.report, second.fingerprint) == (first.report, first.fingerprint)
    for changed in ({"max_length": 64}, {"train_fraction": 0.5}, {"completion_only_loss": "false"}):
        with pytest.raises((BadInputError, FileNotFoundError)):
            prepare(settings_of(model, pairs, **changed), data, models, cache, print)
    with pytest.raises((BadInputError, FileNotFoundError)):
        prepare(settings_of(model, pairs), Fetched(pairs, "changed"), models, cache, print)
    cache.close()


def test_another_chat_template_is_another_preparation_and_other_weights_are_not(
    preparing: Preparing, model: Path, pairs: Path, tmp_path: Path
) -> None:
    first = preparing(pairs)
    other = shutil.copytree(model, tmp_path / "model")
    next(other.glob("*.safetensors")).write_bytes(b"other weights")
    assert preparing(pairs, of=other).train.cache_files == first.train.cache_files
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "bot"))
    assert preparing(pairs, of=other).fingerprint != first.fingerprint


def test_what_a_killed_writer_left_does_no_harm(
    preparing: Preparing, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("llmtune_trainer.data.making.fingerprint_in", _killed)
        with pytest.raises(KeyboardInterrupt):
            preparing(pairs)
    assert preparing(pairs).report["rows"] == {"train": 4, "eval": 2}


def _killed(_: Path) -> str:
    raise KeyboardInterrupt


def test_an_evaluation_tokenises_no_training_row(preparing: Preparing, pairs: Path) -> None:
    whole, judged = preparing(pairs), preparing(pairs, only_eval=True)
    assert len(judged.train) == 0
    assert judged.fingerprint == whole.fingerprint
    assert judged.report["rows"] == {"train": 0, "eval": 2}


# --- which rows -----------------------------------------------------------------------------------------------


def test_what_is_evaluated_depends_on_no_share_of_the_training_rows(preparing: Preparing, data: Path) -> None:
    file = data / "train.jsonl"
    whole, half, few = (
        preparing(file, eval_fraction=0.25, **share)
        for share in ({}, {"train_fraction": 0.5}, {"max_train_samples": 3})
    )
    assert whole.fingerprint == half.fingerprint == few.fingerprint
    assert [len(found.train) for found in (whole, half, few)] == [36, 18, 3]
    sides = [{str(row) for row in tokens_in(rows)} for rows in (few.train, half.train, whole.train, whole.eval)]
    assert sides[0] < sides[1] < sides[2]
    assert not sides[2] & sides[3]
    assert preparing(file, eval_fraction=0.25, split_seed=1).fingerprint != whole.fingerprint


def test_rows_that_differ_only_in_what_is_not_learned_from_are_not_on_both_sides(
    preparing: Preparing, tmp_path: Path
) -> None:
    _jsonl(tmp_path / "rows.jsonl", [{"text": f"text {number % 5}", "id": number} for number in range(50)])
    prepared = preparing(tmp_path / "rows.jsonl", eval_fraction=0.05)
    sides = [{str(row) for row in tokens_in(rows)} for rows in (prepared.train, prepared.eval)]
    assert not sides[0] & sides[1]


def test_parts_of_one_split_are_trained_on_and_evaluated(preparing: Preparing, data: Path, tokenizer: Any) -> None:
    prepared = preparing(data, dataset_train_split="train[:75%]", dataset_test_split="train[-12:]")
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    expected = [_tokens(tokenizer, row["prompt"], row["completion"]) for row in rows]
    assert tokens_in(prepared.train) == sorted(expected[:36])
    assert tokens_in(prepared.eval) == sorted(expected[36:])


def test_short_evaluation_rows_come_first(preparing: Preparing, pairs: Path) -> None:
    assert (
        lengths := preparing(pairs, dataset_test_split="train", dataset_train_split="eval").eval["length"][:]
    ) == sorted(lengths)


# --- what is lost, and what is told ---------------------------------------------------------------------------


def test_what_is_left_out_is_told_and_reported(preparing: Preparing, tmp_path: Path, said: list[str]) -> None:
    rows: Rows = [{"prompt": f"q{number}", "completion": "a" * number} for number in range(1, 100)]
    rows[7] = {"prompt": "q" * 200, "completion": "a"}
    (tmp_path / "data").mkdir()
    _jsonl(tmp_path / "data" / "train.jsonl", [*rows, {"prompt": "q"}])
    _jsonl(tmp_path / "data" / "eval.jsonl", rows[:3])
    whole = preparing(tmp_path / "data")
    assert whole.report["malformed"] == {
        "rows": 1,
        "first": 'train.jsonl, line 100 has no `completion`: {"prompt": "q"}',
    }
    assert (whole.report["truncated"]["rows"], whole.report["truncated"]["tokens"]) == (0, 0)
    said.clear()
    cut = preparing(tmp_path / "data", max_length=64)
    assert cut.report["dropped"] == {"rows": 1}
    lengths = [row["length"] for row in whole.train]
    assert cut.report["truncated"] == {
        "rows": sum(length > 64 for length in lengths),
        "tokens": sum(length - 64 for length in lengths if length > 64),
        "length": 64,
    }
    assert cut.report["tokens"]["train"] == sum(row["length"] for row in cut.train)
    assert max(cut.train["length"][:]) == 64
    told = cut.report["truncated"]
    assert (
        said[-3:]
        == cut.report["remarks"]
        == [
            'malformed rows left out: 1; the first: train.jsonl, line 100 has no `completion`: {"prompt": "q"}',
            f"rows cut off at --max_length 64: {told['rows']}, by {told['tokens']} tokens in all",
            "rows left out, as nothing to learn was left of them: 1",
        ]
    )


def test_nothing_left_to_learn_is_an_error(preparing: Preparing, pairs: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"No token of the evaluation rows is left to learn: .*--max_length 4\. Fix"
    ):
        preparing(pairs, max_length=4)


def test_a_row_is_no_longer_than_the_model(
    preparing: Preparing, model: Path, pairs: Path, tmp_path: Path, said: list[str]
) -> None:
    small = shutil.copytree(model, tmp_path / "model")
    config = json.loads((small / "config.json").read_text())
    longest = max(preparing(pairs).train["length"][:])
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": longest - 1}))
    assert max(preparing(pairs, of=small).train["length"][:]) == longest - 1
    assert any(text.startswith(f"rows cut off at the {longest - 1} tokens that the model takes: ") for text in said)


def test_a_bare_tokenizer_works_and_what_it_cannot_teach_is_told(
    preparing: Preparing, model: Path, pairs: Path, tmp_path: Path, said: list[str]
) -> None:
    """Without template, padding and end."""
    bare = shutil.copytree(model, tmp_path / "model")
    (bare / "chat_template.jinja").unlink()
    config = json.loads((bare / "tokenizer_config.json").read_text())
    kept = {name: value for name, value in config.items() if name not in ("eos_token", "pad_token")}
    (bare / "tokenizer_config.json").write_text(json.dumps(kept))
    prepared = preparing(pairs, of=bare)
    assert prepared.report["rows"] == {"train": 4, "eval": 2}
    assert said[-1].startswith("the tokenizer has no end-of-text token (eos_token)")
    tokenizer = AutoTokenizer.from_pretrained(bare)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (None, None, None)
    whole = [tokenizer(question + answer)["input_ids"] for question, answer in TRAIN]
    assert sorted(row["input_ids"] for row in prepared.train) == sorted(whole)


def test_too_many_rows_that_the_template_refuses_are_an_error(
    preparing: Preparing, model: Path, pairs: Path, tmp_path: Path
) -> None:
    strict = shutil.copytree(model, tmp_path / "model")
    template = strict / "chat_template.jinja"
    template.write_text(
        "{% if 'owl' in messages[0]['content'] %}{{ raise_exception('no owls') }}{% endif %}" + template.read_text()
    )
    problem = r"2 of 4 rows of the split 'train' are malformed.*row 3 is refused by the chat template \(no owls\)"
    with pytest.raises(BadInputError, match=problem):
        preparing(pairs, of=strict)
    prepared = preparing(pairs, of=strict, max_malformed_fraction=0.5)
    assert prepared.report["rows"]["train"] == 2
    assert prepared.report["malformed"]["rows"] == 2


# --- other tasks ----------------------------------------------------------------------------------------------


def test_classes_are_numbered_by_the_names_of_the_data(preparing: Preparing, tmp_path: Path) -> None:
    rows: Rows = [{"text": f"text {number}", "label": number % 3} for number in range(12)]
    _jsonl(tmp_path / "rows.jsonl", [row | {"label": row["label"] + 9} for row in rows])
    numbered = preparing(tmp_path / "rows.jsonl", task="classification")
    assert numbered.labels == ("9", "10", "11")
    saved = Dataset.from_list(rows).cast_column("label", ClassLabel(names=["wet", "dry", "hot", "cold"]))
    saved.save_to_disk(str(tmp_path / "saved"))
    named = preparing(tmp_path / "saved", task="classification")
    assert named.labels == ("wet", "dry", "hot", "cold")
    assert sorted(numbered.train["label"][:]) == sorted(named.train["label"][:])
    assert set(named.train["label"][:]) == {0, 1, 2}
    assert numbered.fingerprint == named.fingerprint


def test_preferences_are_as_long_as_their_longer_half(preparing: Preparing, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number}", "chosen": "yes " * number, "rejected": "no"} for number in range(1, 12)]
    _jsonl(tmp_path / "rows.jsonl", rows)
    prepared = preparing(tmp_path / "rows.jsonl", task="dpo")
    assert prepared.report["rows"] == {"train": 10, "eval": 1}
    for row in prepared.train:
        assert row["length"] == len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
