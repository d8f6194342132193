"""Any arguments: an object that the server takes, or one error that an author can act on; never a traceback."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import arguments
from airflow_llmtune.operators.katib import KatibExperimentOperator, KatibTuneLLMOperator
from airflow_llmtune.operators.kserve import DeployLLMOperator, InferenceServiceOperator
from airflow_llmtune.operators.trainer import (
    EvaluateLLMOperator,
    FineTuneLLMOperator,
    PyTorchJobOperator,
    TrainJobOperator,
)
from mutations import mutate, spoil_text
from verdicts import judge, made

# The operators that write the manifest themselves, and those that are given one.
WRITING: dict[type[Any], st.SearchStrategy[Any]] = {
    KatibTuneLLMOperator: arguments.tunings,
    FineTuneLLMOperator: arguments.fine_tunings,
    EvaluateLLMOperator: arguments.evaluations,
    DeployLLMOperator: arguments.deployments,
}


def _with(argument: str, manifests: st.SearchStrategy[Any], others: st.SearchStrategy[Any]) -> Any:
    return st.builds(lambda manifest, other: {argument: manifest, **other}, manifests, others)


GIVEN: dict[type[Any], st.SearchStrategy[Any]] = {
    KatibExperimentOperator: _with("experiment", arguments.any_experiments, arguments.searches),
    TrainJobOperator: _with("train_job", arguments.train_jobs, arguments.trainings),
    PyTorchJobOperator: _with("pytorch_job", arguments.pytorch_jobs, arguments.trainings),
    InferenceServiceOperator: _with("inference_service", arguments.inference_services(), arguments.raw_deployments),
}
ALL = {**WRITING, **GIVEN}


def takes_as_it_is(found: dict[str, Any]) -> bool:
    """Whether something in it is the server's to judge: what the cluster has, and parts of Kubernetes' own objects."""
    options = found.get("job_options")
    has_parts = isinstance(options, dict) and (options.get("pod_template") or options.get("runtime_ref"))
    return bool(has_parts or found.get("overrides") or found.get("namespace") or found.get("labels"))


@pytest.mark.parametrize("kind", ALL)
def test_good_arguments_are_taken(kind: type[Any], kubeconfig: str, cases: settings, tally: Any) -> None:
    @settings(cases)
    @given(ALL[kind])
    def check(good: dict[str, Any]) -> None:
        verdict = judge(made(kind, kubeconfig, good))
        tally.count(verdict)
        assert verdict.accepted, verdict

    check()


@st.composite
def changed(draw: st.DrawFn, good: st.SearchStrategy[Any]) -> dict[str, Any]:
    found = copy.deepcopy(draw(good))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 5)))):
        mutate(draw, found)
    return found


@pytest.mark.parametrize("kind", ALL)
def test_any_arguments_are_taken_or_explained(kind: type[Any], kubeconfig: str, cases: settings, tally: Any) -> None:
    @settings(cases)
    @given(changed(ALL[kind]))
    def check(given_arguments: dict[str, Any]) -> None:
        verdict = judge(made(kind, kubeconfig, given_arguments))
        tally.count(verdict)
        if kind in WRITING and not takes_as_it_is(given_arguments):
            assert verdict.refusal is None

    check()
    tally.assert_mixed()


@st.composite
def as_text(draw: st.DrawFn, good: st.SearchStrategy[Any]) -> dict[str, Any]:
    (argument, manifest), *others = draw(good).items()
    return {argument: spoil_text(draw, json.dumps(manifest, indent=draw(st.sampled_from((None, 1))))), **dict(others)}


@pytest.mark.parametrize("kind", GIVEN)
def test_any_text_is_taken_or_explained(kind: type[Any], kubeconfig: str, cases: settings, tally: Any) -> None:
    @settings(cases)
    @given(as_text(GIVEN[kind]))
    def check(given_arguments: dict[str, Any]) -> None:
        tally.count(judge(made(kind, kubeconfig, given_arguments)))

    check()
    tally.assert_mixed()
