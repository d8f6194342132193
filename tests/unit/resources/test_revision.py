"""The label by which a model's version is found on Deployments and pods."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources.revision import REVISION_LABEL, read_revisions, revision_of, stamped

PREDICTOR: dict[str, Any] = {"model": {"args": ["--a"]}, "labels": {"team": "nlp"}}


@pytest.mark.parametrize(
    "change",
    [
        {"minReplicas": 3},
        {"maxReplicas": 3},
        {"name": "r1"},
        {"canaryTrafficPercent": 10},
        {"labels": {"team": "nlp", REVISION_LABEL: "earlier"}},
    ],
)
def test_what_starts_no_pod_is_no_other_version(change):
    assert revision_of({**PREDICTOR, **change}) == revision_of(PREDICTOR)


@pytest.mark.parametrize("change", [{"model": {"args": ["--b"]}}, {"labels": {"team": "a"}}, {"tolerations": []}])
def test_what_starts_pods_is_another_version(change):
    assert revision_of({**PREDICTOR, **change}) != revision_of(PREDICTOR)


def test_each_component_with_pods_of_its_own_is_marked():
    spec = {
        "predictor": PREDICTOR,
        "transformer": {"containers": []},
        "canary": [{"trafficPercent": 5, "predictor": {"name": "r1"}}],
    }
    marked = stamped(spec)
    assert set(read_revisions(marked)) == {
        revision_of(part) for part in (PREDICTOR, spec["transformer"], spec["canary"][0]["predictor"])
    }
    assert marked["predictor"]["labels"]["team"] == "nlp"
    assert read_revisions(spec) == []


def test_an_llm_inference_service_is_marked_itself_and_its_prefill():
    spec = {"model": {"uri": "hf://a/b"}, "replicas": 2, "prefill": {"replicas": 1, "template": {}}}
    assert len(read_revisions(stamped(spec))) == 2
    assert read_revisions(stamped({**spec, "replicas": 3})) == read_revisions(stamped(spec))


@given(st.dictionaries(st.sampled_from(["model", "labels", "minReplicas"]), st.dictionaries(st.text(), st.text())))
def test_to_mark_twice_is_to_mark_once(predictor):
    once = stamped({"predictor": predictor})
    assert stamped(once) == once
