"""A cache is one address for the trainer and, where it is a volume, what mounts it; every mistake in it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.resources import trial_template
from airflow_llmtune.resources.cache import Cache, claims_of
from airflow_llmtune.resources.fingerprint import evaluation_fingerprint, training_fingerprint
from airflow_llmtune.resources.own_name import OWN_NAME, fill_in
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace, double
from airflow_llmtune.resources.trainer_spec import TrainerSpec

JSON = dict[str, Any]
GIBIBYTE = 1024**3
MOUNT = "/var/cache/llmtune"


def read(given: Any) -> Cache:
    problems = Problems()
    cache = Cache.read(given, problems)
    assert problems.errors == []
    assert cache is not None
    return cache


def mistakes(given: Any, **trainer: Any) -> list[tuple[str, str]]:
    problems = Problems()
    arguments = {"model": "org/base", "dataset": "org/rows", **trainer}
    TrainerSpec.from_args(cache=given, problems=problems, **arguments)
    return [(error.argument, error.rule) for error in problems.errors]


def training(given: Any, **trainer: Any) -> JSON:
    problems = Problems()
    arguments = {"model": "org/base", "dataset": "org/rows", **trainer}
    spec = TrainerSpec.from_args(cache=given, problems=problems, **arguments)
    assert spec.cache is not None
    made = trial_template.training_manifest(spec, "run-1", "ml", {"team": "nlp"}, spec.cache.annotations, {}, problems)
    assert problems.errors == []
    named: JSON = fill_in(made, "run-1")
    return named


def pod_of(job: JSON) -> JSON:
    return dict(job["spec"]["template"]["spec"])


def args_of(job: JSON) -> list[str]:
    return [arg for arg in pod_of(job)["containers"][0]["args"] if "cache" in arg]


# --- where it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_place_there_is_none(given: Any) -> None:
    problems = Problems()
    assert Cache.read(given, problems) is None
    assert problems.errors == []


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ("pvc://shared", {"cache_dir": "/mnt/shared"}),
        ("pvc://shared/llm/", {"cache_dir": "/mnt/shared/llm"}),
        ({"uri": "pvc://shared/llm", "max_size": "100Gi"},
         {"cache_dir": "/mnt/shared/llm", "cache_max_bytes": str(100 * GIBIBYTE)}),
        ("s3://bucket/prefix/", {"cache_dir": "s3://bucket/prefix"}),
        ({"uri": "s3://bucket"}, {"cache_dir": "s3://bucket"}),
        ({"uri": "s3://bucket/b", "max_size": "1Gi"},
         {"cache_dir": "s3://bucket/b", "cache_max_bytes": str(GIBIBYTE)}),
        ({"uri": "pvc://a", "max_size": "1e9"}, {"cache_dir": "/mnt/a", "cache_max_bytes": "1000000000"}),
        ("node:///var/cache/llm", {"cache_dir": MOUNT}),
        ({"uri": "node:///data/", "max_size": 2**30}, {"cache_dir": MOUNT, "cache_max_bytes": str(GIBIBYTE)}),
        # A file system takes its share of a volume.
        ({"size": "10Gi"}, {"cache_dir": MOUNT, "cache_max_bytes": str(9 * GIBIBYTE)}),
        ({"size": "10Gi", "max_size": "10Gi"}, {"cache_dir": MOUNT, "cache_max_bytes": str(10 * GIBIBYTE)}),
        ({"size": "10Gi", "max_size": None}, {"cache_dir": MOUNT, "cache_max_bytes": str(9 * GIBIBYTE)}),
    ],
)  # fmt: skip
def test_the_trainer_is_told_one_folder_and_perhaps_a_bound(given: Any, flags: dict[str, str]) -> None:
    assert read(given).flags == flags


def test_a_claim_that_is_there_is_mounted_writable_beside_what_is_read() -> None:
    job = training("pvc://shared/cache", model="pvc://models/base", dataset="pvc://shared/rows")
    assert pod_of(job)["containers"][0]["volumeMounts"] == [
        {"name": "claim-0", "mountPath": "/mnt/models", "readOnly": True},
        {"name": "claim-1", "mountPath": "/mnt/shared"},
    ]
    assert args_of(job) == ["--cache_dir=/mnt/shared/cache"]
    assert claims_of(job) == []


def test_a_nodes_folder_is_made_where_it_is_not() -> None:
    job = training("node:///var/llm cache".replace(" ", "-"))
    (volume,) = pod_of(job)["volumes"]
    assert volume["hostPath"] == {"path": "/var/llm-cache", "type": "DirectoryOrCreate"}
    assert pod_of(job)["containers"][0]["volumeMounts"] == [{"name": volume["name"], "mountPath": MOUNT}]
    assert "securityContext" not in pod_of(job)


def test_a_bucket_needs_no_volume() -> None:
    job = training("s3://bucket/cache")
    assert "volumes" not in pod_of(job)
    assert args_of(job) == ["--cache_dir=s3://bucket/cache"]


def test_a_new_volume_is_named_after_its_owner_and_writable_for_the_trainers_user() -> None:
    job = training({"size": "50Gi", "storage_class_name": "shared-fs"})
    (volume,) = pod_of(job)["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "run-1-cache"}
    assert pod_of(job)["securityContext"]["fsGroup"] == 1000
    assert claims_of(job) == [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "run-1-cache", "labels": {"team": "nlp"}},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "shared-fs",
                "resources": {"requests": {"storage": "50Gi"}},
            },
        }
    ]


def test_the_claim_is_that_of_the_object_whatever_the_task_says_by_now() -> None:
    job = training({"size": "50Gi"})
    assert claims_of({**job, "metadata": {**job["metadata"], "annotations": {}}}) == []
    (claim,) = claims_of(json.loads(json.dumps(job)))
    assert "storageClassName" not in claim["spec"]


@pytest.mark.parametrize("modes", [["ReadWriteOnce"], "ReadWriteOnce", ("ReadWriteOnce", "ReadWriteMany")])
def test_access_modes_are_taken_as_they_are(modes: Any) -> None:
    (claim,) = claims_of(training({"size": "1Gi", "access_modes": modes}))
    assert claim["spec"]["accessModes"] == ([modes] if isinstance(modes, str) else list(modes))


def test_an_authors_volume_of_another_name_stays() -> None:
    override = {"spec": {"volumes": [{"name": "cache", "emptyDir": {}}], "securityContext": {"fsGroup": 7}}}
    pod = pod_of(training({"size": "1Gi"}, pod_template=override))
    assert [volume["name"] for volume in pod["volumes"]] == ["llmtune-cache", "cache"]
    assert pod["securityContext"]["fsGroup"] == 7


def test_all_kinds_of_jobs_mount_it() -> None:
    for options in ({"num_nodes": 2}, {"job_kind": "TrainJob"}, {"job_kind": "TrainJob", "num_nodes": 2}):
        problems = Problems()
        space = SearchSpace.from_json({"learning_rate": double(1e-5, 1e-3)}, problems)
        arguments: JSON = {"model": "org/base", "dataset": "org/rows", "cache": {"size": "1Gi"}, **options}
        spec = TrainerSpec.from_args(problems=problems, **arguments)
        text = json.dumps(fill_in(trial_template.trial_template(spec, space, problems), "exp-1"))
        assert problems.errors == []
        assert text.count('"claimName": "exp-1-cache"') == text.count(f'"mountPath": "{MOUNT}"') > 0
        assert OWN_NAME not in text


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "argument", "rule"),
    [
        ("/var/cache", "cache", "is no place for a cache"),
        ("file:///var/cache", "cache", "is no place for a cache"),
        ("org/name", "cache", "is no place for a cache"),
        ("hf://org/name", "cache", "is no place for a cache"),
        ("gs://bucket/cache", "cache", "is no place for a cache"),
        ("pvc://Shared", "cache", "is no place for a cache"),
        ("s3://key:secret@bucket", "cache", "is no place for a cache"),
        ("node://", "cache", "is no place for a cache"),
        ("node:///", "cache", "is no place for a cache"),
        ("node://var/cache", "cache", "is no place for a cache"),
        ("node:///var/../etc", "cache", "is no place for a cache"),
        ("node:///a b", "cache", "is no place for a cache"),
        ("None", "cache", "is no place for a cache"),
        (7, "cache", "is no place for a cache"),
        ([], "cache", "is no place for a cache"),
        ({}, "cache.uri", "is no place for a cache"),
        ({"uri": "/x"}, "cache.uri", "is no place for a cache"),
        ({"max_size": "1Gi"}, "cache.uri", "is no place for a cache"),
        ({1: "x"}, "cache", "is not a mapping with text keys"),
        ({"uri": "pvc://a", "sise": 1}, "cache.sise", "is not known"),
        ({"uri": "pvc://a", "max_size": "much"}, "cache.max_size", "is not a size above 0"),
        ({"uri": "pvc://a", "max_size": 0}, "cache.max_size", "is not a size above 0"),
        ({"uri": "pvc://a", "max_size": True}, "cache.max_size", "is not a size above 0"),
        ({"uri": "pvc://a", "max_size": 100}, "cache.max_size", "is less than a mebibyte"),
        ({"uri": "pvc://a", "access_modes": ["ReadWriteMany"]}, "cache.access_modes", "is of a new volume only"),
        ({"uri": "pvc://a", "storage_class_name": "x"}, "cache.storage_class_name", "is of a new volume only"),
        ({"size": "50GB"}, "cache.size", "is not a size above 0"),
        ({"size": None}, "cache.size", "is not a size above 0"),
        ({"size": 50}, "cache.size", "is less than a mebibyte"),
        ({"size": "5Gi", "max_size": "6Gi"}, "cache.max_size", "is more than the volume's `size`"),
        ({"size": "5Gi", "uri": "pvc://a"}, "cache.uri", "is given together with the `size`"),
        ({"size": "5Gi", "storage_class_name": "Fast SSD"}, "cache.storage_class_name", "is not a name"),
        ({"size": "5Gi", "access_modes": ["RWX"]}, "cache.access_modes", "is not known"),
        ({"size": "5Gi", "access_modes": ["ReadOnlyMany"]}, "cache.access_modes", "is not known"),
        ({"size": "5Gi", "access_modes": []}, "cache.access_modes", "is empty"),
        ({"size": "5Gi", "access_modes": ["ReadWriteOncePod", "ReadWriteMany"]}, "cache.access_modes",
         "has ReadWriteOncePod beside others"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(given: Any, argument: str, rule: str) -> None:
    ((told, why),) = mistakes(given)
    assert told == argument
    assert rule in why


def test_all_mistakes_are_told_at_once() -> None:
    given = {"size": "x", "max_size": -1, "access_modes": ["RWX"], "storage_class_name": "A", "uri": 1, "clas": "x"}
    assert {told for told, _ in mistakes(given)} == {f"cache.{key}" for key in given}


@pytest.mark.parametrize(
    ("cache", "sources", "named"),
    [
        ("pvc://work", {"output_uri": "pvc://work/out"}, "output_uri"),
        ("pvc://work/out/cache", {"output_uri": "pvc://work/out"}, "output_uri"),
        ("pvc://work/a", {"dataset": "pvc://work/a"}, "dataset"),
        ("pvc://work/a", {"model": "pvc://work/a/b"}, "model"),
        ("s3://bucket", {"dataset": "s3://bucket/rows"}, "dataset"),
        ("s3://bucket/out/cache", {"output_uri": "s3://bucket/out/"}, "output_uri"),
        ("pvc://work/a", {"evaluates": True, "adapter": "pvc://work/a/b"}, "adapter"),
        ({"size": "1Gi"}, {"model": f"{MOUNT}/base"}, "model"),
    ],
)
def test_it_is_apart_from_what_is_no_cache(cache: Any, sources: JSON, named: str) -> None:
    ((argument, rule),) = mistakes(cache, **sources)
    assert argument == "cache"
    assert f"is not apart from `{named}`" in rule


def test_it_may_lie_beside_the_rest_on_one_volume() -> None:
    beside = {"model": "pvc://work/cached", "dataset": "pvc://work/a", "output_uri": "pvc://work/cache2"}
    assert mistakes("pvc://work/cache", **beside) == []


@pytest.mark.parametrize("flag", ["cache_dir", "cache_max_bytes"])
def test_its_flags_have_an_argument_of_their_own(flag: str) -> None:
    ((argument, rule),) = mistakes(None, trainer_args={flag: "x"})
    assert (argument, rule) == (f"trainer_args.{flag}", "has an argument of its own")


@pytest.mark.parametrize("given", ["pvc://a/${trialParameters.x}", "node:///a/${trialParameters.x}"])
def test_what_katib_would_replace_is_a_mistake(given: str) -> None:
    problems = Problems()
    space = SearchSpace.from_json({"learning_rate": double(1e-5, 1e-3)}, problems)
    spec = TrainerSpec.from_args(model="org/base", dataset="org/rows", cache=given, problems=problems)
    trial_template.trial_template(spec, space, problems)
    assert [(error.argument, error.rule) for error in problems.errors] == [
        ("cache", "contains what Katib would replace")
    ]


# --- shared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "pods", "told"),
    [
        ("pvc://shared", 8, None),
        ("node:///data", 8, None),
        ({"size": "1Gi"}, 8, None),
        ({"size": "1Gi", "access_modes": ["ReadWriteOnce", "ReadWriteMany"]}, 8, None),
        ({"size": "1Gi", "access_modes": ["ReadWriteOnce"]}, 1, None),
        ({"size": "1Gi", "access_modes": ["ReadWriteOncePod"]}, 1, None),
        # On a single node it works, and nobody here knows how many there are.
        ({"size": "1Gi", "access_modes": ["ReadWriteOnce"]}, 2, "up to 2 pods share a ReadWriteOnce volume"),
    ],
)
def test_what_may_go_wrong_with_several_pods_is_told(given: Any, pods: int, told: str | None) -> None:
    problems = Problems()
    note = read(given).check_shared(pods, problems)
    assert problems.errors == []
    assert (note or "").startswith(told or "")
    assert (note is None) == (told is None)


def test_a_volume_of_one_pod_is_not_for_several() -> None:
    problems = Problems()
    read({"size": "1Gi", "access_modes": "ReadWriteOncePod"}).check_shared(4, problems)
    (error,) = problems.errors
    assert (error.argument, error.rule) == (
        "cache.access_modes",
        "is for one pod at a time, and up to 4 run at once",
    )


@pytest.mark.parametrize("given", ["node:///data", {"size": "1Gi"}, "pvc://shared/a"])
def test_a_job_with_it_is_one_of_kubernetes(given: Any, through_job_model: Callable[[JSON], JSON]) -> None:
    assert through_job_model(training(given)) == training(given)


def test_a_result_does_not_depend_on_it() -> None:
    versions = {"model": "m", "dataset": "d"}
    found = set()
    for cache in (None, "pvc://shared/a", {"size": "1Gi"}):
        spec = TrainerSpec.from_args(model="org/base", dataset="org/rows", cache=cache, problems=Problems())
        found.add((training_fingerprint(spec, {}, versions), evaluation_fingerprint(spec, {}, None, versions)))
    assert len(found) == 1
