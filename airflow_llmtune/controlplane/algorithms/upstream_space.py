"""The feasible space as the libraries of Katib's services take it, for ``strict``; all else leaves a request as it is.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from airflow_llmtune.controlplane.algorithms.request import SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import Parameter, Range


class UpstreamFailureError(Exception):
    """Strict: Katib's service raises at this call, which is repeated without end."""


def as_goptuna(request: SearchRequest) -> SearchRequest:
    """It knows no distributions."""
    return _seen(request, lambda one: replace(one, distribution="uniform"))


def as_skopt(request: SearchRequest) -> SearchRequest:
    """Doubles are searched in logarithms, ints evenly, whatever was asked for."""
    return _seen(request, _for_skopt)


def as_optuna(request: SearchRequest) -> SearchRequest:
    """It has no normal distributions."""
    return _seen(request, _for_optuna)


def _seen(request: SearchRequest, change: Callable[[Range], Range]) -> SearchRequest:
    if not request.strict:
        return request
    space: list[Parameter] = [change(one) if isinstance(one, Range) else one for one in request.space]
    return replace(request, space=space)


def _for_skopt(parameter: Range) -> Range:
    if not parameter.is_int and float(parameter.low) <= 0:
        raise UpstreamFailureError(
            f"Exception calling application: {parameter.name} is searched in logarithms, but its min is not positive"
        )
    return replace(parameter, distribution="uniform" if parameter.is_int else "logUniform")


def _for_optuna(parameter: Range) -> Range:
    if parameter.is_normal:
        raise UpstreamFailureError(
            f"Exception calling application: {parameter.name} has distribution {parameter.distribution}, "
            "which Optuna has not"
        )
    return parameter
