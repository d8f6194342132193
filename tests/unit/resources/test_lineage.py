"""Names by which OpenLineage joins a task to others that read or write the same."""

from __future__ import annotations

import pytest

from airflow_llmtune.resources.lineage import DatasetName, name_dataset, read_parameters, read_tags


@pytest.mark.parametrize(
    ("role", "address", "name"),
    [
        ("dataset", "s3://bucket/data/rows/", DatasetName("s3://bucket", "data/rows")),
        ("dataset", "s3://bucket", DatasetName("s3://bucket", "/")),
        ("model", "org/base", DatasetName("https://huggingface.co", "org/base")),
        ("model", "hf://org/base@v2", DatasetName("https://huggingface.co", "org/base", "v2")),
        ("dataset", "org/rows", DatasetName("https://huggingface.co", "datasets/org/rows")),
        ("artifact", "file:///models/final", DatasetName("file", "/models/final")),
        ("artifact", "/models/final", DatasetName("file", "/models/final")),
        ("artifact", "pvc://claim/models/a", DatasetName("pvc://team/claim", "/models/a")),
        ("artifact", "pvc://claim", DatasetName("pvc://team/claim", "/")),
        ("dataset", "nowhere", None),
        ("adapter", None, None),
    ],
)
def test_a_source_is_named_after_where_it_lies(role, address, name):
    assert name_dataset(role, address, "team") == name


def test_the_version_that_the_trainer_read_goes_before_the_one_asked_for():
    found = name_dataset("model", "org/base@main", "team", "1111")
    assert found is not None
    assert found.version == "1111"


def test_parameters_and_numbers_are_texts():
    result = {
        "parameters": {"learning_rate": 0.001, "lora_r": 8, "bias": False, "nested": {}},
        "metrics": {"eval_loss": 2.5},
        "experiment": "exp",
        "trial": "exp-1",
        "namespace": "team",
        "job": None,
    }
    assert read_parameters(result) == {"learning_rate": "0.001", "lora_r": "8", "bias": "false"}
    tags = {"experiment": "exp", "trial": "exp-1", "namespace": "team", "metrics.eval_loss": "2.5"}
    assert read_tags(result) == tags


def test_a_training_tells_the_settings_of_its_manifest():
    assert read_parameters({"manifest": {"parameters": {"lora_r": 8}}}) == {"lora_r": "8"}
    assert read_parameters({}) == {}
