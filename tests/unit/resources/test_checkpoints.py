from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.fingerprint import training_fingerprint
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace, integer
from airflow_llmtune.resources.trainer_spec import TrainerSpec
from airflow_llmtune.resources.trial_template import training_manifest, trial_template

JSON = dict[str, Any]
SHARED = {"shares_checkpoints": True, "checkpoint_steps": 50, "checkpoint_uri": "s3://bucket/kept"}


def build(**changes: Any) -> tuple[TrainerSpec, Problems]:
    problems = Problems()
    return TrainerSpec.from_args(model="/m", dataset="/d", problems=problems, **changes), problems


def trial(**changes: Any) -> JSON:
    spec, problems = build(**{**SHARED, **changes})
    found: JSON = trial_template(spec, SearchSpace.from_json({"max_steps": integer(1, 9)}, problems), problems)
    problems.raise_if_any("The trial")
    return dict(found["trialSpec"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"checkpoint_uri": None}, {"checkpoint_uri": "is missing: trials have no other place"}),
        ({"checkpoint_steps": None}, {"checkpoint_steps": "is missing, and `checkpoint_uri` would stay empty"}),
        ({"checkpoint_steps": 0}, {"checkpoint_steps": "is less than 1"}),
        ({"checkpoint_uri": "org/name"}, {"checkpoint_uri": "is no address"}),
        ({"checkpoint_uri": "hf://org/name"}, {"checkpoint_uri": "is no address"}),
        ({"cache": "s3://bucket/kept/cache"}, {"cache": "is not apart from `checkpoint_uri`"}),
        (
            {"checkpoint_steps": "often", "checkpoint_uri": 7},
            {"checkpoint_steps": "is not a whole number", "checkpoint_uri": "is no address"},
        ),
    ],
)
def test_each_mistake_is_named(changes: JSON, told: dict[str, str]) -> None:
    _, problems = build(**{**SHARED, **changes})
    assert [error.argument for error in problems.errors] == list(told)
    assert all(rule in error.rule for error, rule in zip(problems.errors, told.values(), strict=True))


def test_what_katib_would_replace_in_their_place_is_a_mistake() -> None:
    spec, problems = build(**{**SHARED, "checkpoint_uri": "/kept/${trialParameters.max_steps}"})
    trial_template(spec, SearchSpace.from_json({"max_steps": integer(1, 9)}, problems), problems)
    assert [error.argument for error in problems.errors] == ["checkpoint_uri"]


def test_checkpoints_are_kept_for_trials_of_other_lengths_only() -> None:
    spec, problems = build(**SHARED)
    trial_template(spec, SearchSpace.from_json({"lora_r": integer(1, 9)}, problems), problems)
    ((argument, rule),) = [(error.argument, error.rule) for error in problems.errors]
    assert argument == "checkpoint_uri"
    assert "for runs of other `trainer_args.max_steps`" in rule


@pytest.mark.parametrize("name", ["save_steps", "checkpoint_dir", "keep_checkpoints"])
def test_they_are_not_searched(name: str) -> None:
    spec, problems = build()
    trial_template(spec, SearchSpace.from_json({name: integer(1, 9)}, problems), problems)
    assert [(error.argument, error.rule) for error in problems.errors] == [
        (f"parameters.{name}", "is set by the operator itself")
    ]


def test_every_trial_is_told_the_same_place_and_may_write_there() -> None:
    job = trial(checkpoint_uri="pvc://work/kept")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    flags = ["--save_steps=50", "--checkpoint_dir=/mnt/work/kept", "--keep_checkpoints=true"]
    assert [flag for flag in container["args"] if flag in flags] == flags
    assert container["volumeMounts"] == [{"name": "claim-0", "mountPath": "/mnt/work"}]


def test_a_fine_tune_keeps_its_own_below_its_output() -> None:
    spec, problems = build(checkpoint_steps=50, output_uri="/out")
    job = training_manifest(spec, "a", "b", {}, {}, {}, problems)
    assert problems.errors == []
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [flag for flag in container["args"] if "checkpoint" in flag or "save" in flag] == ["--save_steps=50"]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 60),
        ({"pod_template": {"spec": {"terminationGracePeriodSeconds": 300}}}, 300),
        ({"num_nodes": 2}, 60),
        ({"job_kind": "TrainJob"}, 60),
        ({"job_kind": "TrainJob", "kubeflow_trainer_version": "2.2"}, None),
    ],
)
def test_a_pod_that_saves_has_a_minute_for_it(options: JSON, seconds: int | None) -> None:
    assert grace_of(trial(**options)) == seconds
    assert grace_of(trial(**options, checkpoint_steps=None, checkpoint_uri=None)) == (300 if seconds == 300 else None)


def grace_of(job: JSON) -> Any:
    """Wherever a kind has its pods."""
    spec = job["spec"]
    if job["kind"] == "PyTorchJob":
        return spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"].get("terminationGracePeriodSeconds")
    if job["kind"] == "Job":
        return spec["template"]["spec"].get("terminationGracePeriodSeconds")
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return node["template"]["spec"]["template"].get("spec", {}).get("terminationGracePeriodSeconds")


def test_where_checkpoints_lie_changes_no_result() -> None:
    specs = [build(**changes)[0] for changes in ({}, SHARED, {"checkpoint_steps": 7, "output_uri": "/out"})]
    assert len({training_fingerprint(spec, {}, {}) for spec in specs}) == 1
