"""Where runs of the trainer share what they download and prepare: as the author says it, and as their pods have it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_llmtune.resources.companion import VOLUME_CLAIM
from airflow_llmtune.resources.meta import is_plain, path, text_of
from airflow_llmtune.resources.own_name import OWN_NAME
from airflow_llmtune.resources.pod_resources import quantity
from airflow_llmtune.resources.problems import Problems, did_you_mean
from airflow_llmtune.resources.source import Source

__all__ = ["CACHE_FLAG", "CACHE_SIZE_FLAG", "Cache", "claims_of"]

CACHE_FLAG, CACHE_SIZE_FLAG = "cache_dir", "cache_max_bytes"
# Of an object that has a claim of its own: the claim's spec. So whichever try adopts the object makes the same claim.
_ANNOTATION = "airflow-llmtune/cache"

_MOUNT = "/var/cache/llmtune"
_VOLUME = "llmtune-cache"
_NODE = r"node://(?P<path>/[^\s:]*[^\s:/])/?"
# Of a source's forms, those that several pods can write to.
_SHARED = ("pvc://", "s3://")
_FIX = "give pvc://claim/path, node:///path, s3://bucket/prefix, or {'size': '50Gi'} for a new volume"
_OF_A_CLAIM = ("storage_class_name", "access_modes")
_KEYS = ("uri", "size", "max_size", *_OF_A_CLAIM)
_ANY, _ONE_NODE, _ONE_POD = "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
_MEBIBYTE = 1024**2
# A file system keeps something of a volume for itself, and on a full one every run fails.
_USABLE = 0.9
# That of the user of the trainer's image: a new volume belongs to root.
_GROUP = 1000


class Cache(NamedTuple):
    """``address`` is what the trainer is told; a volume has to be mounted for one of the other three."""

    address: str
    max_bytes: int | None = None
    claim: str | None = None
    node_path: str | None = None
    claim_spec: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, given: Any, problems: Problems) -> Cache | None:
        """An empty text is what a template makes of a cache that is not there."""
        if given is None or given == "":
            return None
        if not isinstance(given, Mapping):
            return _find("cache", given, problems)
        before = len(problems.errors)
        options = problems.mapping("cache", given)
        if len(problems.errors) > before:
            return None
        for key in [key for key in options if key not in _KEYS]:
            problems.add(f"cache.{key}", options[key], "is not known", did_you_mean(key, _KEYS))
        if "size" in options:
            return _new(options, problems)
        for key in [key for key in _OF_A_CLAIM if key in options]:
            problems.add(f"cache.{key}", options[key], "is of a new volume only", "give its `size`, or leave it out")
        found, bound = _find("cache.uri", options.get("uri"), problems), _bound(options, problems)
        return None if found is None else found._replace(max_bytes=bound)

    @property
    def flags(self) -> dict[str, str]:
        bound = {} if self.max_bytes is None else {CACHE_SIZE_FLAG: str(self.max_bytes)}
        return {CACHE_FLAG: self.address, **bound}

    @property
    def annotations(self) -> dict[str, str]:
        """Of the object that is to own the claim."""
        return {} if self.claim_spec is None else {_ANNOTATION: json.dumps(self.claim_spec)}

    def mount(self, pod: dict[str, Any], container: dict[str, Any]) -> None:
        """Claims that were there before are mounted with the sources' own."""
        if self.node_path is not None:
            source: dict[str, Any] = {"hostPath": {"path": self.node_path, "type": "DirectoryOrCreate"}}
        elif self.claim_spec is not None:
            source = {"persistentVolumeClaim": {"claimName": _claim_name(OWN_NAME)}}
            pod["securityContext"] = {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
        else:
            return
        pod["volumes"] = [*pod.get("volumes", []), {"name": _VOLUME, **source}]
        mount = {"name": _VOLUME, "mountPath": _MOUNT}
        container["volumeMounts"] = [*container.get("volumeMounts", []), mount]

    def check_apart(self, sources: Mapping[str, str | None], problems: Problems) -> None:
        """``sources``: what the trainer is told of the folders that are no cache; what is in one, it may delete."""
        for argument, flag in sources.items():
            if flag is not None and (_is_below(flag, self.address) or _is_below(self.address, flag)):
                rule = f"is not apart from `{argument}`, and a cache deletes what it has no use for"
                problems.add("cache", self.address, rule, "give each a folder of its own")

    def check_shared(self, pods: int, problems: Problems) -> str | None:
        """Tell what may go wrong when so many pods at once use a new volume; what has to is a mistake."""
        modes = path(self.claim_spec, "accessModes") or ()
        if pods > 1 and _ONE_POD in modes:
            rule = f"is for one pod at a time, and up to {pods} run at once"
            problems.add("cache.access_modes", list(modes), rule, f"give {_ANY}, or run one at a time")
        if pods > 1 and _ONE_NODE in modes and _ANY not in modes:
            return f"up to {pods} pods share a {_ONE_NODE} volume: those on another node than the first cannot start"
        return None


def claims_of(obj: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The claim that an object was made with, to be owned by it."""
    spec = path(obj, "metadata", "annotations", _ANNOTATION)
    if spec is None:
        return []
    metadata = {"name": _claim_name(obj["metadata"]["name"]), "labels": dict(obj["metadata"].get("labels") or {})}
    return [
        {
            "apiVersion": VOLUME_CLAIM.api_version,
            "kind": VOLUME_CLAIM.kind,
            "metadata": metadata,
            "spec": json.loads(spec),
        }
    ]


def _claim_name(owner: str) -> str:
    return f"{owner}-cache"


def _is_below(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/")


def _find(argument: str, given: Any, problems: Problems) -> Cache | None:
    if is_plain(given) and isinstance(given, str):
        if (node := re.fullmatch(_NODE, given)) and ".." not in node["path"].split("/"):
            return Cache(_MOUNT, node_path=node["path"])
        source = Source.read(argument, given, Problems()) if given.startswith(_SHARED) else None
        if source is not None:
            return Cache(source.flag, claim=source.claim)
    problems.add(argument, given, "is no place for a cache", _FIX)
    return None


def _new(options: Mapping[str, Any], problems: Problems) -> Cache | None:
    if "uri" in options:
        rule = "is given together with the `size` of a new volume"
        problems.add("cache.uri", options["uri"], rule, "leave one of the two out")
    size, bound = _size("cache.size", options["size"], problems), _bound(options, problems)
    spec: dict[str, Any] = {"accessModes": _access_modes(options.get("access_modes"), problems)}
    if options.get("storage_class_name") is not None:
        fix = "give a StorageClass of the cluster, or leave it out for the cluster's default"
        spec["storageClassName"] = problems.name("cache.storage_class_name", options["storage_class_name"], fix)
    if size is None:
        return None
    if bound is not None and bound > size:
        problems.add("cache.max_size", options["max_size"], "is more than the volume's `size`", "give less")
    spec["resources"] = {"requests": {"storage": text_of(options["size"])}}
    return Cache(_MOUNT, int(size * _USABLE) if bound is None else bound, claim_spec=spec)


def _access_modes(given: Any, problems: Problems) -> list[str]:
    if given is None:
        return [_ANY]
    modes = given if isinstance(given, list | tuple) else [given]
    known = [mode for mode in modes if problems.choice("cache.access_modes", mode, (_ANY, _ONE_NODE, _ONE_POD))]
    if not modes or (_ONE_POD in known and len(set(known)) > 1):
        rule = "is empty" if not modes else f"has {_ONE_POD} beside others, which Kubernetes refuses"
        problems.add("cache.access_modes", list(modes), rule, f"give ['{_ANY}']")
    return known


def _bound(options: Mapping[str, Any], problems: Problems) -> int | None:
    given = options.get("max_size")
    return None if given is None else _size("cache.max_size", given, problems)


def _size(argument: str, given: Any, problems: Problems) -> int | None:
    text = text_of(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
    amount = quantity(text)
    if amount is None or amount <= 0:
        problems.add(argument, given, "is not a size above 0", "give such as '50Gi'")
    elif amount < _MEBIBYTE:
        problems.add(argument, given, "is less than a mebibyte: it counts bytes", "give a unit, such as '50Gi'")
    else:
        return int(amount)
    return None
