"""The environment of a container: texts, and references to what must not stand in a manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.meta import is_plain, path, text_of
from airflow_llmtune.resources.redaction import is_secret

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["check_entries", "check_environments", "read_env", "refuse_secret"]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# Each with what it cannot do without.
_SOURCES = {
    "secretKeyRef": ("name", "key"),
    "configMapKeyRef": ("name", "key"),
    "fieldRef": ("fieldPath",),
    "resourceFieldRef": ("resource",),
}


def read_env(given: Any, problems: Problems) -> dict[str, str | Mapping[str, Any]]:
    env: dict[str, str | Mapping[str, Any]] = {}
    for name, value in problems.mapping("env", given).items():
        where = f"env.{name.partition('=')[0]}"  # behind `=` somebody may have written the value
        if not re.fullmatch(_NAME, name):
            problems.add(where, name, "is not a variable's name", "use letters, digits and `_`, no digit first")
        elif isinstance(value, Mapping):
            _check_source(where, value, problems)
            env[name] = dict(value)
        elif not is_plain(value):
            fix = "give a text, or {'secretKeyRef': {'name': …, 'key': …}}"
            problems.add(where, value, "is not a text that a process can be given", fix)
        elif is_secret(name, value):
            refuse_secret(where, value, problems)
        else:
            env[name] = text_of(value)
    return env


def _check_source(where: str, source: Mapping[str, Any], problems: Problems) -> None:
    if len(source) != 1 or (kind := next(iter(source))) not in _SOURCES:
        rule = "is not exactly one of " + ", ".join(_SOURCES)
        problems.add(where, source, rule, "give such as {'secretKeyRef': {'name': …, 'key': …}}")
        return
    for key in _SOURCES[kind]:
        value = path(source[kind], key)
        if not isinstance(value, str) or not value:
            problems.add(f"{where}.{kind}.{key}", None, "is missing, or no text", f"give the {key}")


def check_entries(where: str, entries: list[Mapping[str, Any]], problems: Problems) -> None:
    """Find secrets in the form that Kubernetes gives an environment; each entry has a name."""
    for entry in entries:
        value = entry.get("value")
        if value is not None and is_secret(entry["name"], value):
            refuse_secret(f"{where}.{entry['name'].partition('=')[0]}", value, problems)


def check_environments(where: str, node: Any, problems: Problems) -> None:
    """Find them in the ``env`` of any container below."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_environments(f"{where}[{index}]", item, problems)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key == "env" and isinstance(value, list):
            named = [item for item in value if isinstance(item, Mapping) and isinstance(item.get("name"), str)]
            check_entries(f"{where}.env", named, problems)
        else:
            check_environments(f"{where}.{key}", value, problems)


def refuse_secret(where: str, value: Any, problems: Problems) -> None:
    fix = "put it in a Kubernetes Secret, and give `env` {'secretKeyRef': {'name': …, 'key': …}}"
    problems.add(where, value, "looks like a secret and would be readable in the manifest", fix)
