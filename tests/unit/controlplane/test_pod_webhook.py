"""What Katib's webhook makes of the pods of a Trial."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, SUGGESTION, TRIAL, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from objects import Object

TRIAL_SPEC: Object = {
    "objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]},
    "primaryContainerName": "main",
    "metricsCollector": {"collector": {"kind": "StdOut"}},
}
TRIAL_NAME_FIELD = {"fieldRef": {"fieldPath": "metadata.labels['katib.kubeflow.org/trial']"}}
COMMON_ARGS = "-t trial -m loss;acc -o-type minimize -s-db katib-db-manager.kubeflow:6789 -path"
REFUSED = 'admission webhook "mutator.pod.katib.kubeflow.org" denied the request: '


def owned(kind: Kind, owner: Object, name: str, spec: Object, **metadata: Any) -> Object:
    references = [owner_reference(kind, owner)]
    meta = {"name": name, "namespace": owner["metadata"]["namespace"], "ownerReferences": references}
    return {"metadata": {**meta, **metadata}, "spec": spec}


def make_job(registry: Registry, **spec: Any) -> Object:
    """The Job of a Trial of the Experiment ``exp``."""
    metadata = {"name": "trial", "namespace": "default", "labels": {"katib.kubeflow.org/experiment": "exp"}}
    trial = registry.create(TRIAL, {"metadata": metadata, "spec": {**TRIAL_SPEC, **spec}})
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x", "command": ["a"]}]}
    return registry.create(JOB, owned(TRIAL, trial, "trial", {"template": {"spec": pod_spec}}))


def make_pod(registry: Registry, job: Object, container: Object | None = None, **metadata: Any) -> Object:
    main = {"name": "main", "image": "busybox", **(container or {"command": ["run"]})}
    return registry.create(POD, owned(JOB, job, "pod", {"restartPolicy": "Never", "containers": [main]}, **metadata))


def make_suggestion(registry: Registry, **settings: str) -> None:
    pairs = [{"name": name, "value": value} for name, value in settings.items()]
    spec = {"algorithm": {"algorithmName": "pbt", "algorithmSettings": pairs}, "requests": 1}
    registry.create(SUGGESTION, {"metadata": {"name": "exp", "namespace": "default"}, "spec": spec})


def collector(kind: str, **source: Any) -> Object:
    return {"collector": {"kind": kind}, **({"source": source} if source else {})}


def at(path: str, kind: str, **more: Any) -> Object:
    return {"path": path, "kind": kind, **more}


@pytest.mark.parametrize(
    ("container", "command", "script"),
    [
        ({"command": ["sh", "-c", "a; b"]}, ["sh", "-c"], "a; b"),
        ({"command": ["bash", "-c"], "args": ["a", "b c"]}, ["bash", "-c"], "a b c"),
        ({"command": ["python", "t.py"], "args": ["--x='1'", "$HOME"]}, ["sh", "-c"], "python t.py --x='1' $HOME"),
        ({"command": ["/bin/sh", "-c", "a"]}, ["sh", "-c"], "/bin/sh -c a"),
        ({"command": ["sh"]}, ["sh", "-c"], "sh"),
    ],
)
def test_words_are_joined_unquoted_and_the_output_is_redirected(
    registry: Registry, container: Object, command: list[str], script: str
) -> None:
    main = make_pod(registry, make_job(registry), container)["spec"]["containers"][0]
    assert main["command"] == command
    assert main["args"] == [f"{script} 1>/var/log/katib/metrics.log 2>&1 && echo completed > /var/log/katib/$$$$.pid"]


def test_the_sidecar_the_volume_and_the_labels_are_added(registry: Registry) -> None:
    shown_by_default = {"kubectl.kubernetes.io/default-container": "metrics-logger-and-collector"}
    pod = make_pod(registry, make_job(registry), labels={"own": "label"}, annotations=shown_by_default)
    main, sidecar = pod["spec"]["containers"]
    mount = {"name": "metrics-volume", "mountPath": "/var/log/katib"}
    assert sidecar["name"] == "metrics-logger-and-collector"
    assert sidecar["image"] == "kubeflow/katib/file-metrics-collector:v0.19.0"
    assert sidecar["args"] == f"{COMMON_ARGS} /var/log/katib/metrics.log -format TEXT".split()
    assert main["volumeMounts"] == sidecar["volumeMounts"] == [mount]
    assert pod["spec"]["volumes"] == [{"name": "metrics-volume", "emptyDir": {}}]
    assert pod["spec"]["shareProcessNamespace"] is True
    assert pod["metadata"]["labels"] == {
        "own": "label",
        "katib.kubeflow.org/experiment": "exp",
        "katib.kubeflow.org/trial": "trial",
    }
    assert pod["metadata"]["annotations"] == shown_by_default
    assert main["env"] == [{"name": "KATIB_TRIAL_NAME", "valueFrom": TRIAL_NAME_FIELD}]


def test_a_file_collector_leaves_the_output_alone(registry: Registry) -> None:
    filters = {"metricsFormat": ["(a)(b)", "(c)(d)"]}
    file = collector("File", fileSystemPath=at("/metrics/./x/../out.txt", "File", format="TEXT"), filter=filters)
    main, sidecar = make_pod(registry, make_job(registry, metricsCollector=file))["spec"]["containers"]
    assert main["args"] == ["run && echo completed > /metrics/$$$$.pid"]
    assert main["volumeMounts"] == [{"name": "metrics-volume", "mountPath": "/metrics"}]
    path, *rest = sidecar["args"][sidecar["args"].index("-path") + 1 :]
    assert (path, rest) == ("/metrics/./x/../out.txt", ["-f", "(a)(b);(c)(d)", "-format", "TEXT"])


def test_a_json_file_is_said_to_be_one(registry: Registry) -> None:
    file = collector("File", fileSystemPath=at("/metrics/out.json", "File", format="JSON"))
    sidecar = make_pod(registry, make_job(registry, metricsCollector=file))["spec"]["containers"][1]
    assert sidecar["args"][-2:] == ["-format", "JSON"]


def test_event_files_are_collected_from_a_folder_by_a_sidecar_of_their_own(registry: Registry) -> None:
    events = collector("TensorFlowEvent", fileSystemPath=at("/logs/events/", "Directory"))
    main, sidecar = make_pod(registry, make_job(registry, metricsCollector=events))["spec"]["containers"]
    assert main["args"] == ["run && echo completed > /logs/events/$$$$.pid"]
    assert main["volumeMounts"] == [{"name": "metrics-volume", "mountPath": "/logs/events/"}]
    assert (sidecar["name"], sidecar["image"]) == (
        "metrics-collector",
        "kubeflow/katib/tfevent-metrics-collector:v0.19.0",
    )
    assert sidecar["args"] == f"{COMMON_ARGS} /logs/events/".split()
    assert sidecar["resources"]["limits"]["memory"] == "1Gi"


def test_push_only_tells_the_trials_name(registry: Registry) -> None:
    make_suggestion(registry, suggestion_trial_dir="/shared")
    pod = make_pod(registry, make_job(registry, metricsCollector=collector("Push")), {"args": ["run"]})
    (main,) = pod["spec"]["containers"]
    assert main["args"] == ["run"]
    assert main["env"] == [{"name": "KATIB_TRIAL_NAME", "valueFrom": TRIAL_NAME_FIELD}]
    assert "volumes" not in pod["spec"]
    assert pod["metadata"]["labels"]["katib.kubeflow.org/trial"] == "trial"


def custom(container: Object, **place: Any) -> Object:
    return {
        "collector": {"kind": "Custom", "customCollector": container},
        **({"source": {"fileSystemPath": place}} if place else {}),
    }


@pytest.mark.parametrize(("kind", "folder"), [("File", "/metrics"), ("Directory", "/metrics/out")])
def test_a_custom_collector_is_added_as_it_is_and_shares_the_volume(registry: Registry, kind: str, folder: str) -> None:
    own = {"name": "mine", "image": "busybox", "args": ["-x"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    job = make_job(registry, metricsCollector=custom(own, path="/metrics/out", kind=kind))
    main, sidecar = make_pod(registry, job)["spec"]["containers"]
    assert main["command"] == ["run"], "it is not wrapped"
    assert {name: sidecar[name] for name in own} == {
        **own,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "metrics-volume", "mountPath": folder}],
    }


def test_a_custom_collector_without_a_source_gets_no_volume(registry: Registry) -> None:
    job = make_job(registry, metricsCollector=custom({"name": "mine", "image": "busybox"}))
    pod = make_pod(registry, job, {"args": ["run"]})
    assert "volumes" not in pod["spec"]
    assert [one["name"] for one in pod["spec"]["containers"]] == ["main", "mine"]


def test_a_custom_collector_that_is_no_container_is_refused_by_the_api_server(registry: Registry) -> None:
    job = make_job(registry, metricsCollector=custom({"name": "mine"}))
    with pytest.raises(ApiError) as caught:
        make_pod(registry, job)
    assert (caught.value.code, "containers[1].image: Required value" in caught.value.message) == (422, True)


RULES = [
    {"name": "loss", "value": "0.5", "comparison": "greater", "startStep": 4},
    {"name": "acc", "value": "0.1", "comparison": "less"},
]


def test_early_stopping_rules_go_to_the_sidecar_and_the_command_looks_for_its_mark(registry: Registry) -> None:
    make_suggestion(registry)
    main, sidecar = make_pod(registry, make_job(registry, earlyStoppingRules=RULES))["spec"]["containers"]
    assert sidecar["args"][-6:] == [
        "-stop-rule",
        "loss;0.5;greater;4",
        "-stop-rule",
        "acc;0.1;less;0",
        "-s-earlystop",
        "exp-pbt.default:6788",
    ]
    folder = "/var/log/katib"
    script = (
        f"run 1>{folder}/metrics.log 2>&1 || if test -f {folder}/$$$$.pid && [ $(head -n 1 {folder}/$$.pid) = "
        "early-stopped ]; then echo Training Container was Early Stopped; else echo Training Container was Failed; "
        f"exit 1; fi && echo completed > {folder}/$$$$.pid"
    )
    assert main["args"] == [script]


def test_early_stopping_rules_without_a_suggestion_are_refused(registry: Registry) -> None:
    with pytest.raises(ApiError) as caught:
        make_pod(registry, make_job(registry, earlyStoppingRules=RULES))
    assert caught.value.message == f'{REFUSED}invalid suggestion name: Suggestion.kubeflow.org "exp" not found'


def test_the_suggestions_volume_is_mounted_where_its_settings_say(registry: Registry) -> None:
    make_suggestion(registry, suggestion_trial_dir="/shared")
    pod = make_pod(registry, make_job(registry))
    main, sidecar = pod["spec"]["containers"]
    shared = {"name": "suggestion-volume", "mountPath": "/shared", "subPath": "exp/trial"}
    assert main["volumeMounts"] == [shared, {"name": "metrics-volume", "mountPath": "/var/log/katib"}]
    assert shared not in sidecar["volumeMounts"]
    assert pod["spec"]["volumes"][0] == {
        "name": "suggestion-volume",
        "persistentVolumeClaim": {"claimName": "exp-pbt"},
    }


@pytest.mark.parametrize("labels", [{"role": "worker"}, {"other": "master"}, {}])
def test_a_pod_that_is_not_primary_only_gets_labels_and_the_trials_name(
    registry: Registry, labels: dict[str, str]
) -> None:
    job = make_job(registry, primaryPodLabels={"role": "master"})
    pod = make_pod(registry, job, labels=labels)
    (main,) = pod["spec"]["containers"]
    assert main["command"] == ["run"]
    assert main["env"][0]["name"] == "KATIB_TRIAL_NAME"
    assert pod["metadata"]["labels"]["katib.kubeflow.org/trial"] == "trial"


def test_a_pod_without_the_primary_container_is_refused(registry: Registry) -> None:
    job = make_job(registry, primaryContainerName="trainer")
    with pytest.raises(ApiError) as caught:
        make_pod(registry, job)
    text = "Unable to find primary container trainer in mutated pod containers ['main']"
    assert caught.value.message == f"{REFUSED}{text}"


def test_a_primary_container_without_a_command_is_refused(registry: Registry) -> None:
    with pytest.raises(ApiError, match="container main has no command: the entrypoint of image busybox"):
        make_pod(registry, make_job(registry), {"args": ["run"]})


@pytest.mark.parametrize(
    ("kind", "path"),
    [("File", "/metrics.log"), ("File", "/x/../metrics.log"), ("Directory", "/"), ("Directory", "//.")],
)
def test_metrics_directly_under_the_root_are_refused(registry: Registry, kind: str, path: str) -> None:
    name = "File" if kind == "File" else "TensorFlowEvent"
    job = make_job(registry, metricsCollector=collector(name, fileSystemPath=at(path, kind)))
    with pytest.raises(ApiError) as caught:
        make_pod(registry, job)
    assert caught.value.message.startswith(f"{REFUSED}metrics collector path {path}: its volume cannot be mounted at /")


def test_a_pod_that_belongs_to_no_trial_or_whose_namespace_is_not_for_katib_is_left_alone(registry: Registry) -> None:
    spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", "command": ["run"]}]}
    plain = registry.create(POD, {"metadata": {"name": "plain", "namespace": "default"}, "spec": spec})
    assert len(plain["spec"]["containers"]) == 1
    trial = registry.create(TRIAL, {"metadata": {"name": "trial", "namespace": "plain"}, "spec": TRIAL_SPEC})
    pod = registry.create(POD, owned(TRIAL, trial, "pod", spec))
    assert pod["spec"]["containers"][0]["command"] == ["run"]
    assert "labels" not in pod["metadata"]
