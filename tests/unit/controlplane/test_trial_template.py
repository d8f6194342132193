from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.controllers.trial_template import RenderError, render
from objects import Object

NO_ASSIGNMENT = "unable to find non-meta parameter from TrialParameters in ParameterAssignment"
NO_PARAMETER = "unable to find parameter from ParameterAssignment in TrialParameters"
TEMPLATE: Object = {
    "trialSpec": {},
    "trialParameters": [
        {"name": "rate", "reference": "lr"},
        {"name": "who", "reference": "${trialSpec.Name}"},
        {"name": "team", "reference": "${trialSpec.Labels[team]}"},
    ],
}
TEXT = (
    '{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {"team": "red"}}, '
    '"args": ["${trialParameters.rate}", "${trialParameters.who}/${trialParameters.team}"]}'
)


def test_placeholders_are_replaced_as_text() -> None:
    job = render(TEMPLATE, TEXT, [{"name": "lr", "value": "0.1"}], "trial", "default")
    assert job["args"] == ["0.1", "trial/red"]
    assert job["metadata"] == {"labels": {"team": "red"}, "name": "trial", "namespace": "default"}


def test_a_yaml_template_can_turn_values_into_numbers() -> None:
    template = {"trialParameters": [{"name": "n", "reference": "n"}]}
    text = "kind: Job\nspec:\n  parallelism: ${trialParameters.n}\n  since: 2026-11-22\n---\nkind: Other\n"
    found = [render(template, text, [{"name": "n", "value": value}], "t", "d")["spec"] for value in ("2", "1e-05")]
    assert [spec["parallelism"] for spec in found] == [2, 0.00001]
    assert found[0]["since"] == "2026-11-22"


@pytest.mark.parametrize(
    ("assignments", "text"),
    [
        (
            [{"name": "x", "value": "1"}],
            f"{NO_ASSIGNMENT}: parameter: lr, parameter assignment: map[x:1]",
        ),
        (
            [{"name": "lr", "value": "1"}, {"name": "x", "value": "2"}],
            f"{NO_PARAMETER}: parameter assignments: [{{lr 1}} {{x 2}}], non-meta trial parameter count: 1",
        ),
        ([{"name": "lr", "value": 'a"b'}], "failed to convert string to unstructured: "),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error(assignments: list[dict[str, str]], text: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(TEMPLATE, TEXT, assignments, "trial", "default")
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (
            "${trialSpec.Labels[size]}",
            "illegal reference of trial metadata: ${trialSpec.Labels[size]}; failed to fetch ",
        ),
        ("${trialSpec.Uid}", "illegal reference of trial metadata: ${trialSpec.Uid}"),
    ],
)
def test_metadata_that_is_not_there_is_an_error(reference: str, text: str) -> None:
    template = {"trialParameters": [{"name": "rate", "reference": reference}]}
    with pytest.raises(RenderError) as caught:
        render(template, TEXT, [], "trial", "default")
    assert str(caught.value).startswith(text)
