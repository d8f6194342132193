"""The validator's rules for ``spec.parameters``. Pure."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors

# "unknown" is a word of the API too; a Suggestion has no use for it and fails later.
_TYPES = ("int", "double", "categorical", "discrete", "unknown")
_DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal", "unknown")


def check_parameters(spec: dict[str, Any], errors: FieldErrors) -> None:
    parameters, nas_config = spec.get("parameters"), spec.get("nasConfig")
    if not parameters and nas_config is None:
        errors.required("spec", "spec.parameters or spec.nasConfig must be specified")
    if parameters and nas_config is not None:
        errors.invalid("spec", spec, "only one of spec.parameters and spec.nasConfig can be specified")
    if nas_config is not None:
        # Differs from Katib, which runs neural architecture searches.
        errors.forbidden("spec.nasConfig", "this control plane does not search neural architectures")
    for index, parameter in enumerate(parameters or ()):
        _check(f"spec.parameters[{index}]", parameter, errors)


def _check(path: str, parameter: dict[str, Any], errors: FieldErrors) -> None:
    type_, space = parameter.get("parameterType", ""), parameter["feasibleSpace"]
    if type_ not in _TYPES:
        errors.invalid(f"{path}.parameterType", type_, f"parameterType: {type_} is not supported")
    distribution = space["distribution"]
    if distribution not in _DISTRIBUTIONS:
        detail = f"distribution: {distribution} is not supported"
        errors.invalid(f"{path}.feasibleSpace.distribution", distribution, detail)
    if type_ in {"double", "int"}:
        _check_range(path, type_, space, errors)
    elif type_ in {"categorical", "discrete"}:
        _check_list(path, type_, space, errors)


def _check_range(path: str, type_: str, space: dict[str, Any], errors: FieldErrors) -> None:
    if "list" in space:
        detail = f"feasibleSpace.list is not supported for parameterType: {type_}"
        errors.invalid(f"{path}.feasibleSpace.list", space["list"], detail)
    if "max" not in space or "min" not in space:
        detail = f"feasibleSpace.max or feasibleSpace.min must be specified for parameterType: {type_}"
        errors.required(f"{path}.feasibleSpace.max", detail)


def _check_list(path: str, type_: str, space: dict[str, Any], errors: FieldErrors) -> None:
    """An empty list passes, as upstream: the default distribution makes the space look filled."""
    if any(name in space for name in ("max", "min", "step")):
        detail = f"feasibleSpace .max, .min and .step is not supported for parameterType: {type_}"
        errors.invalid(f"{path}.feasibleSpace", space, detail)
