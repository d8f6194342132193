"""Which runtime serves a model: the one that it names, or the first that takes its format. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import SERVER_TYPE

Object = dict[str, Any]

_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
_UNKNOWN_PROTOCOL = -1
_SERVER_TYPES = {
    f"kserve-{one}": one for one in ("tensorflow-serving", "torchserve", "huggingfaceserver", "vllmserver")
}


class InvalidSpecError(Exception):
    """No pod can be made of the predictor: the reason and the message of ``modelStatus``, and the event's text."""

    def __init__(self, reason: str, message: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Runtime:
    name: str
    spec: Object
    annotations: Object
    is_cluster_wide: bool

    @property
    def server_type(self) -> str:
        """Which of KServe's own servers it is, as some of them are treated apart."""
        return str(self.annotations.get(SERVER_TYPE) or _SERVER_TYPES.get(self.name, ""))


def runtime_of(obj: Object) -> Runtime:
    metadata = obj["metadata"]
    return Runtime(metadata["name"], obj["spec"], metadata.get("annotations") or {}, "namespace" not in metadata)


def select(model: Object, runtimes: Sequence[Object], cluster_runtimes: Sequence[Object]) -> Runtime:
    """Raises InvalidSpecError."""
    if model.get("runtime"):
        return _named(model, runtimes, cluster_runtimes)
    for found in (runtimes, cluster_runtimes):
        fitting = [one for one in _ordered(found) if _fits(model, one["spec"])]
        if fitting:
            return runtime_of(max(fitting, key=lambda one: _priority(model, one["spec"])))
    raise InvalidSpecError(
        "NoSupportingRuntime",
        "No runtime found to support specified framework/version",
        f"no runtime found to support predictor with model type: {_shown(model['modelFormat'])}",
    )


def _named(model: Object, runtimes: Sequence[Object], cluster_runtimes: Sequence[Object]) -> Runtime:
    name = model["runtime"]
    found = next((one for one in (*runtimes, *cluster_runtimes) if one["metadata"]["name"] == name), None)
    if found is None:
        raise InvalidSpecError(
            "RuntimeNotRecognized",
            "Waiting for runtime to become available",
            f"No ServingRuntimes or ClusterServingRuntimes with the name: {name}",
        )
    if found["spec"].get("disabled"):
        raise InvalidSpecError(
            "RuntimeDisabled", "Specified runtime is disabled", f"specified runtime {name} is disabled"
        )
    asked = model.get("protocolVersion")
    for fits, what in (
        (asked is None or _speaks(found["spec"], asked), "protocol version"),
        (_knows(model, found["spec"]), "framework/version"),
    ):
        if not fits:
            text = f"does not support specified {what}"
            raise InvalidSpecError(
                "NoSupportingRuntime", f"Specified runtime {text}", f"specified runtime {name} {text}"
            )
    return runtime_of(found)


def _fits(model: Object, spec: Object) -> bool:
    if spec.get("disabled") or spec.get("multiModel") or spec.get("workerSpec") is not None:
        return False
    return _knows(model, spec) and _speaks(spec, model.get("protocolVersion", "v1"))


def _speaks(spec: Object, protocol: str) -> bool:
    spoken = spec.get("protocolVersions") or ()
    return not spoken or protocol in spoken


def _knows(model: Object, spec: Object) -> bool:
    """A runtime that is not named must offer itself for the format."""
    wanted = model["modelFormat"]
    for one in spec.get("supportedModelFormats") or ():
        offered = model.get("runtime") or one.get("autoSelect")
        if offered and one["name"] == wanted["name"] and wanted.get("version") in (None, one.get("version")):
            return True
    return False


def _priority(model: Object, spec: Object) -> int:
    """Of those without one the first stays first."""
    name = model["modelFormat"]["name"]
    first: Object = next((one for one in spec.get("supportedModelFormats") or () if one["name"] == name), {})
    return int(first.get("priority") or 0)


def _ordered(runtimes: Sequence[Object]) -> list[Object]:
    """By protocol, then the newest, then by name."""
    by_name = sorted(runtimes, key=lambda one: str(one["metadata"]["name"]))
    newest_first = sorted(by_name, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True)
    return sorted(newest_first, key=lambda one: protocol_rank(one["spec"].get("protocolVersions") or ()))


def protocol_rank(protocols: Sequence[str]) -> int:
    known = [_PROTOCOLS.index(one) if one in _PROTOCOLS else _UNKNOWN_PROTOCOL for one in protocols]
    return min(known, default=_UNKNOWN_PROTOCOL)


def _shown(model_format: Object) -> str:
    """As Go prints the struct; a version it shows as an address, which nobody can read."""
    return f"{{{model_format['name']} {model_format.get('version') or '<nil>'}}}"
