"""What Airflow and DAG authors see of the package before anything runs."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.sdk import DAG, BaseHook
from airflow.sdk.bases.operator import BaseOperator
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger

import airflow_llmtune
import llmtune_trainer
from airflow_llmtune import exceptions, operators
from airflow_llmtune.get_provider_info import get_provider_info
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.trial_template import TRAINER_IMAGE

ROOT = Path(__file__).parent.parent.parent


def _modules(package):
    return [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]


def test_the_provider_info_is_what_airflow_expects():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


@pytest.mark.parametrize("kind", ["operators", "triggers", "hooks"])
def test_the_provider_info_lists_every_module_that_has_a_public_class_for_dag_authors(kind):
    listed = {name for entry in get_provider_info()[kind] for name in entry["python-modules"]}
    base = {"operators": BaseOperator, "triggers": BaseTrigger, "hooks": BaseHook}[kind]
    package = importlib.import_module(f"airflow_llmtune.{kind}")
    for name in _modules(package):
        module = importlib.import_module(name)
        public = [getattr(module, symbol) for symbol in module.__all__]
        has_class = any(inspect.isclass(item) and issubclass(item, base) for item in public)
        assert (name in listed) == (
            has_class
            and not name.endswith(
                (
                    *(".base", ".cache", ".credentials", ".deployment", ".experiment_lifecycle", ".owning"),
                    *(".unchanged", ".waiting"),
                )
            )
        ), name


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.stem)
def test_each_example_dag_can_be_imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.dag.task_ids


def test_every_public_operator_documents_each_of_its_arguments():
    for name in _modules(operators):
        module = importlib.import_module(name)
        for symbol in module.__all__:
            item = getattr(module, symbol)
            if not (inspect.isclass(item) and issubclass(item, BaseOperator) and "__init__" in vars(item)):
                continue
            own = inspect.signature(item.__init__).parameters.keys() - {"self", "kwargs", "multiple_outputs"}
            undocumented = [key for key in own if f":param {key}:" not in (item.__doc__ or "")]
            assert undocumented == [], symbol


@pytest.mark.parametrize(
    ("operator_class", "own"),
    [
        (KatibTuneLLMOperator, {"parameters": {}}),
        (FineTuneLLMOperator, {"output_uri": "/out"}),
        (EvaluateLLMOperator, {"adapter": "/adapter"}),
    ],
)
def test_every_template_field_is_an_attribute_of_the_same_name(operator_class, own):
    operator = operator_class(task_id="t", model="m", dataset="d", **own)
    assert [name for name in operator.template_fields if not hasattr(operator, name)] == []


def test_operators_can_be_mapped_over_a_mapped_tuning_and_stored_by_airflow():
    with DAG("dag", schedule=None) as dag:
        tune = KatibTuneLLMOperator.partial(
            task_id="tune", dataset="/data", parameters={"learning_rate": search.log_uniform(1e-5, 1e-2)}
        ).expand(model=["org/small", "org/large"])
        FineTuneLLMOperator.partial(task_id="train", dataset="/data", model="org/small", output_uri="/out").expand(
            hyperparameters=tune.output.map(lambda result: result["parameters"])
        )
    stored = DagSerialization.to_dict(dag)["dag"]["tasks"]
    assert sorted(task["__var"]["task_id"] for task in stored) == ["train", "tune"]


def test_the_exception_tree_in_the_docstring_is_the_real_one():
    for name in exceptions.__all__:
        assert name == "FieldError" or name in (exceptions.__doc__ or "")


def test_the_default_image_is_the_trainer_of_this_repository():
    assert TRAINER_IMAGE.rpartition(":")[2] == llmtune_trainer.__version__ == airflow_llmtune.__version__
    dockerfile = (ROOT / "trainer" / "Dockerfile").read_text()
    assert f'org.opencontainers.image.version="{llmtune_trainer.__version__}"' in dockerfile
    assert f"-t {TRAINER_IMAGE} " in dockerfile
