"""What the API server itself does to single built-in kinds when they are written, before any admission."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.deletion import NAMESPACE_FINALIZER
from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, NAMESPACE, SECRET

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

_STRING_MAPS: dict[Kind, tuple[str, ...]] = {
    CONFIG_MAP: ("data", "binaryData"),
    SECRET: ("data", "stringData"),
}


def prepare(kind: Kind, obj: dict[str, Any], *, is_new: bool) -> None:
    """In place; raises 400 for data that the kind's typed decoder would not read."""
    for field in _STRING_MAPS.get(kind, ()):
        _check_strings(kind, field, obj.get(field))
    if kind is SECRET:
        _prepare_secret(obj)
    if kind is NAMESPACE and is_new:
        _prepare_namespace(obj)


def _check_strings(kind: Kind, field: str, value: Any) -> None:
    wrong = value is not None and not isinstance(value, dict)
    if wrong or any(not isinstance(one, str) for one in (value or {}).values()):
        raise bad_request(
            f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: json: cannot '
            f"unmarshal into Go struct field {kind.name}.{field} of type map[string]string"
        )


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
        except binascii.Error as error:
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in "{key}": {error}'
            ) from None


def _prepare_namespace(obj: dict[str, Any]) -> None:
    metadata = obj["metadata"]
    labels = metadata["labels"] = metadata.get("labels") or {}
    labels["kubernetes.io/metadata.name"] = metadata.get("name", "")
    obj["spec"] = {"finalizers": [NAMESPACE_FINALIZER]}
    obj["status"] = {"phase": "Active"}
