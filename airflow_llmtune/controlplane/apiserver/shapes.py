"""How lists and maps are merged by server-side apply: item by item, as sets, or as a whole.

Built-in kinds and all metadata follow the names of their well-known lists; custom resources follow the
``x-kubernetes-list-type`` and ``x-kubernetes-map-type`` of their schema, and without one each list is a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# By name of the field: the keys of its items. Where two lists share a name, the first keys that an item has decide.
_LIST_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "conditions": (("type",),),
    "containers": (("name",),),
    "env": (("name",),),
    "ephemeralContainers": (("name",),),
    "hostAliases": (("ip",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "secrets": (("name",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}
_SETS = frozenset({"finalizers"})
_ATOMIC_MAPS = frozenset(
    {"fieldRef", "resourceFieldRef", "secretKeyRef", "configMapKeyRef", "selector", "nodeSelectorTerms", "roleRef"}
)
_KEY_DEFAULTS = {"protocol": "TCP"}


@dataclass(frozen=True)
class Shape:
    """One place in an object. ``schema`` is a custom resource's; it is None below built-in fields."""

    name: str = ""
    schema: Mapping[str, Any] | None = None
    is_item: bool = False

    @property
    def is_atomic_map(self) -> bool:
        if self.schema is None:
            return self.name in _ATOMIC_MAPS
        return self.schema.get("x-kubernetes-map-type") == "atomic"

    def field(self, name: str) -> Shape:
        if self.schema is None or (self.name == "" and name == "metadata"):
            return Shape(name)
        below = (self.schema.get("properties") or {}).get(name, self.schema.get("additionalProperties"))
        return Shape(name, below if isinstance(below, Mapping) else {})

    def item(self) -> Shape:
        if self.schema is None:
            return Shape(self.name, is_item=True)
        below = self.schema.get("items")
        return Shape(self.name, below if isinstance(below, Mapping) else {}, is_item=True)

    def elements(self, items: list[Any]) -> list[str] | None:
        """The items' names in a field path, or None for a list that is one value."""
        if self.schema is None:
            is_set, keys = self.name in _SETS, self._known_keys(items)
        else:
            list_type = self.schema.get("x-kubernetes-list-type")
            is_set = list_type == "set"
            keys = tuple(self.schema.get("x-kubernetes-list-map-keys") or ()) if list_type == "map" else ()
        if is_set:
            return [f"v:{_compact(item)}" for item in items]
        if not keys or not all(isinstance(item, dict) for item in items):
            return None
        return [f"k:{_compact(_key(item, keys))}" for item in items]

    def _known_keys(self, items: list[Any]) -> tuple[str, ...]:
        for keys in _LIST_KEYS.get(self.name, ()):
            if all(isinstance(item, dict) and keys[0] in item for item in items):
                return keys
        return ()


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(keys) if key in item or key in _KEY_DEFAULTS}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
