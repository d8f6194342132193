"""What the API server itself does to single built-in kinds when they are written, before any admission."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.deletion import NAMESPACE_FINALIZER
from airflow_llmtune.controlplane.apiserver.errors import bad_request, invalid, invalid_value
from airflow_llmtune.controlplane.apiserver.immutable import check_unchanged
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, NAMESPACE, SECRET

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)

_STRING_MAPS: dict[Kind, tuple[str, ...]] = {
    CONFIG_MAP: ("data", "binaryData"),
    SECRET: ("data", "stringData"),
}


def prepare(kind: Kind, obj: dict[str, Any], old: dict[str, Any] | None) -> None:
    """In place; raises 400 for data that the kind's typed decoder would not read, 422 for keys no file can have."""
    for field in _STRING_MAPS.get(kind, ()):
        _check_strings(kind, field, obj.get(field))
        _check_keys(kind, obj, field)
    if kind is SECRET:
        _prepare_secret(obj)
    if old is not None:
        check_unchanged(kind, obj, old)
    if kind is NAMESPACE and old is None:
        _prepare_namespace(obj)
    elif kind is NAMESPACE and "deletionTimestamp" not in obj["metadata"]:
        # Only its deletion takes the finalizer away, not a manifest that does not mention it.
        obj["spec"] = {"finalizers": [NAMESPACE_FINALIZER]}


def _check_strings(kind: Kind, field: str, value: Any) -> None:
    wrong = value is not None and not isinstance(value, dict)
    if wrong or any(not isinstance(one, str) for one in (value or {}).values()):
        raise bad_request(
            f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: json: cannot '
            f"unmarshal into Go struct field {kind.name}.{field} of type map[string]string"
        )


def _check_keys(kind: Kind, obj: dict[str, Any], field: str) -> None:
    """Keys become files where such an object is mounted, so none may lead out of the folder."""
    causes = [
        invalid_value(f"{field}[{key}]", key, _KEY_RULE)
        for key in obj.get(field) or {}
        if not _KEY.fullmatch(key) or key == "." or key.startswith("..")
    ]
    if causes:
        raise invalid(kind, obj["metadata"].get("name", ""), causes)


def _prepare_secret(obj: dict[str, Any]) -> None:
    """``stringData`` is write-only: it ends up encoded in ``data``."""
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None) or {}
    if plain:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        obj["data"] = (obj.get("data") or {}) | encoded
    for key, text in (obj.get("data") or {}).items():
        try:
            base64.b64decode(text, validate=True)
        except ValueError as error:
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in "{key}": {error}'
            ) from None


def _prepare_namespace(obj: dict[str, Any]) -> None:
    metadata = obj["metadata"]
    labels = metadata["labels"] = metadata.get("labels") or {}
    labels["kubernetes.io/metadata.name"] = metadata.get("name", "")
    obj["spec"] = {"finalizers": [NAMESPACE_FINALIZER]}
    obj["status"] = {"phase": "Active"}
