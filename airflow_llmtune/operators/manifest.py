"""Manifests as DAG authors hand them over: dict, YAML or JSON text, or a model object of a Kubeflow SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import TemplateNotFound

from airflow_llmtune.resources.environment import check_environments
from airflow_llmtune.resources.meta import metadata
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.shape import check_plain

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["load_manifest_file", "read_manifest", "with_metadata"]

JSON = dict[str, Any]
ENDINGS = (".yaml", ".yml", ".json")


def load_manifest_file(operator: BaseOperator, value: Any) -> Any:
    """
    Return the text of the file that an argument names, to be rendered like any text.

    Airflow's own ``template_ext`` would do so with every templated argument, ``config_file`` among them, and so put a
    kubeconfig with its token where rendered arguments are shown.
    """
    if not _is_file_name(value):
        return value
    environment = operator.get_template_env()
    try:
        return environment.loader.get_source(environment, value)[0] if environment.loader else value
    except TemplateNotFound:
        # Told with the other mistakes when the task runs; a DAG file must stay importable.
        return value


def read_manifest(argument: str, value: Any, check: Callable[[JSON, Problems], None], problems: Problems) -> JSON:
    """
    Return the manifest as a plain dict, checked as its kind demands; empty after having noted why it is none.

    No container's environment may hold a secret: whoever may read the object could read it.
    """
    if isinstance(value, str):
        before = len(problems.errors)
        value = _parse(argument, value, problems)
        if len(problems.errors) > before:
            return {}
    elif not isinstance(value, Mapping):
        value = _from_model(value)
    if not isinstance(value, Mapping):
        problems.add(argument, value, "is no manifest", "give a dict, YAML or JSON text, a file, or a model object")
        return {}
    manifest = dict(value)

    def check_kind() -> None:
        check(manifest, problems)
        check_environments("spec", manifest.get("spec"), problems)

    return manifest if check_plain("", manifest, check_kind, problems) else {}


def with_metadata(
    manifest: JSON, name: str, namespace: str, labels: dict[str, str], annotations: dict[str, str]
) -> JSON:
    """Add the operator's name, labels and annotations to those that the author gave."""
    given = manifest.get("metadata") or {}
    ours = metadata(
        name,
        namespace,
        {**(given.get("labels") or {}), **labels},
        {**(given.get("annotations") or {}), **annotations},
    )
    return {**manifest, "metadata": {**given, **ours}}


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(ENDINGS) and "\n" not in value


def _parse(argument: str, text: str, problems: Problems) -> Any:
    if _is_file_name(text):
        problems.add(argument, text, "names a file that does not exist", "give a path relative to the DAG's folder")
        return None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not the error's own text: it quotes the line, and that may hold a secret.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        rule = f"is neither YAML nor JSON: {getattr(error, 'problem', None) or 'unreadable'}{where}"
        problems.add(argument, text, rule, "mend the text there")
        return None


def _from_model(value: Any) -> Any:
    if hasattr(value, "attribute_map"):
        # An OpenAPI-generator model (kubeflow-katib): its own to_dict gives Python names, not those of the wire.
        from kubernetes.client import ApiClient  # loads for 0.3 s, so only when such an object comes

        return ApiClient().sanitize_for_serialization(value)
    return value.to_dict() if hasattr(value, "to_dict") else value
