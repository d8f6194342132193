"""A real kubectl against the whole control plane: what a person types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from definitions import definition, version, widget
from objects import job, tuning_experiment
from waiting import wait_for

# The machine's own, else the one that `make interop` unpacks.
UNPACKED = Path(__file__).parents[2] / ".interop/kubectl/bin/kubectl"
KUBECTL = shutil.which("kubectl") or shutil.which(UNPACKED)
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine; `make interop` gets one")

Kubectl = Callable[..., str]

WIDGET_READY = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
SPACE = {"min": "0.01", "max": "0.1"}
EXPERIMENT = tuning_experiment(
    "demo",
    # Katib joins the words unquoted, so a command that survives that.
    job("echo", "loss=${trialParameters.rate}"),
    retain=True,
    maxTrialCount=2,
    parameters=[{"name": "lr", "parameterType": "double", "feasibleSpace": SPACE}],
)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def environment(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("kubectl")
    plane.write_kubeconfig(home / "kubeconfig")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "KUBECONFIG": str(home / "kubeconfig"),
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(KUBECTL), *words],
            input=stdin,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def kubectl(run: Callable[..., subprocess.CompletedProcess[str]]) -> Kubectl:
    """What it prints when it succeeds."""

    def succeed(*words: str, stdin: str = "", **more: str) -> str:
        done = run(*words, stdin=stdin, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return succeed


@pytest.fixture
def refused(run: Callable[..., subprocess.CompletedProcess[str]]) -> Kubectl:
    """What it complains about when it fails."""

    def fail(*words: str, stdin: str = "") -> str:
        done = run(*words, stdin=stdin)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    return fail


@pytest.fixture
def watched_trials(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [str(KUBECTL), "get", "trials", "--watch"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        yield watching
        watching.terminate()


def test_an_experiment_from_apply_to_delete(
    kubectl: Kubectl, watched_trials: subprocess.Popen[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "experiment.yaml"
    manifest.write_text(yaml.safe_dump(EXPERIMENT))
    assert kubectl("apply", "-f", str(manifest)) == "experiment.kubeflow.org/demo created\n"
    kubectl("wait", "--for=condition=Succeeded", "experiment/demo", "--timeout=60s")
    assert watched_trials.stdout.readline().split() == ["NAME", "TYPE", "STATUS", "AGE"]
    assert watched_trials.stdout.readline().startswith("demo-")
    # kubectl sends the list of parameters again, for admission completed it; that makes no new generation.
    assert kubectl("apply", "-f", str(manifest)) == "experiment.kubeflow.org/demo configured\n"
    assert kubectl("get", "experiment", "demo", "-o", "jsonpath={.metadata.generation}") == "1"
    assert kubectl("get", "experiment", "demo", "--no-headers").split()[:3] == ["demo", "Succeeded", "True"]
    listed = kubectl("get", "experiments,trials,jobs", "--no-headers")
    assert listed.count("trial.kubeflow.org/demo-") == 2
    assert listed.count("Complete") == 2
    trial = json.loads(kubectl("get", "trials", "-o", "json"))["items"][0]["metadata"]["name"]
    # Katib sends the output of the trial's container to a file that its collector prints.
    log = kubectl("logs", "-l", f"katib.kubeflow.org/trial={trial}", "-c", "metrics-logger-and-collector")
    assert "loss=0.0" in log
    described = kubectl("describe", "experiment", "demo")
    assert "Experiment has succeeded because max trial count has reached" in described
    assert kubectl("delete", "experiment", "demo").startswith('experiment.kubeflow.org "demo" deleted')
    kubectl("wait", "--for=delete", f"trial/{trial}", "--timeout=30s")


def test_a_refused_experiment_tells_why(refused: Kubectl) -> None:
    wrong = EXPERIMENT | {"metadata": {"name": "wrong"}}
    wrong = wrong | {"spec": EXPERIMENT["spec"] | {"parallelTrialCount": 9}}
    told = refused("create", "-f", "-", stdin=yaml.safe_dump(wrong))
    assert 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request' in told
    assert "spec.parallelTrialCount" in told


def test_a_pods_log_is_followed_to_its_end(kubectl: Kubectl) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    kubectl("run", "tick", "--image=busybox", "--restart=Never", "--command", "--", "sh", "-c", script)
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/tick", "--timeout=30s")
    assert kubectl("logs", "-f", "tick") == "line 1\nline 2\nline 3\n"
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/tick", "--timeout=30s")
    assert kubectl("logs", "tick", "--tail=1") == "line 3\n"
    assert kubectl("get", "pod", "tick", "--no-headers").split()[:4] == ["tick", "0/1", "Completed", "0"]
    assert "Started container tick" in kubectl("get", "events", "--field-selector", "involvedObject.name=tick")
    kubectl("delete", "pod", "tick")


def test_objects_are_created_changed_and_shown(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("create", "secret", "generic", "s", "--from-literal=token=xyz")
    kubectl("create", "serviceaccount", "robot")
    kubectl("patch", "configmap", "c", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("label", "configmap", "c", "team=x")
    kubectl("annotate", "configmap", "c", "note=y")
    shown = yaml.safe_load(kubectl("get", "configmap", "-l", "team=x", "-o", "yaml"))["items"][0]
    assert shown["data"] == {"b": "2"}
    assert shown["metadata"]["annotations"] == {"note": "y"}
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.token}") == "eHl6"
    assert kubectl("get", "sa", "robot", "-o", "name") == "serviceaccount/robot\n"
    applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {c: '3'}\n"
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=applied)
    assert "created (server dry run)" in kubectl(
        "apply", "--dry-run=server", "-f", "-", stdin=applied.replace("name: c", "name: d")
    )
    kubectl("delete", "configmap,secret,sa", "--all")
    assert kubectl("get", "configmap", "-o", "name") == ""


def test_a_namespace_comes_and_goes_with_its_content(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "temporary")
    kubectl("-n", "temporary", "create", "configmap", "c")
    kubectl("delete", "namespace", "temporary", "--timeout=30s")
    assert "temporary" not in kubectl("get", "namespaces", "-o", "name")
    assert kubectl("get", "configmap", "-A", "-o", "name") == ""


def test_the_cluster_describes_itself(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "-o", "name").split()
    assert {"experiments.kubeflow.org", "jobs.batch", "pods", "pytorchjobs.kubeflow.org"} <= set(resources)
    assert "KIND:       Experiment" in kubectl("explain", "experiments")
    assert "Server Version: v1." in kubectl("version")
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_a_definition_makes_a_kind_that_kubectl_knows(kubectl: Kubectl, refused: Kubectl) -> None:
    columns = [{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]
    defined = yaml.safe_dump(definition(version(additionalPrinterColumns=columns)))
    assert 'no matches for kind "Widget"' in refused("apply", "-f", "-", stdin=yaml.safe_dump(widget()))
    kubectl("apply", "-f", "-", stdin=defined)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(widget()))
    assert kubectl("get", "widgets-short").splitlines()[0].split() == ["NAME", "SIZE"]
    assert kubectl("get", "widget", "w", "-o", "jsonpath={.spec.count}") == "3"
    explained = kubectl("explain", "widget.spec")
    assert "What a widget should be." in explained
    assert "size\t<string> -required-" in explained
    assert "Unsupported value" in refused("apply", "-f", "-", stdin=yaml.safe_dump(widget("x", size="xl")))
    unknown = refused("apply", "-f", "-", stdin=yaml.safe_dump(widget("x", colour="red")))
    assert 'strict decoding error: unknown field "spec.colour"' in unknown
    kubectl("patch", "widget", "w", "--subresource=status", "--type=merge", "-p", WIDGET_READY)
    kubectl("wait", "--for=condition=Ready", "widget/w", "--timeout=10s")
    kubectl("delete", "crd", "widgets.example.com", "--timeout=20s")
    assert "NotFound" in refused("get", "widgets")
    assert "its definition cannot be deleted" in refused("delete", "crd", "experiments.kubeflow.org")


def test_fields_have_owners_under_server_side_apply(kubectl: Kubectl, refused: Kubectl) -> None:
    applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: '1'}\n"
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=applied)
    other = applied.replace("'1'", "'2'")
    two = ("apply", "--server-side", "--field-manager=two", "-f", "-")
    assert 'conflict with "one": .data.a' in refused(*two, stdin=other)
    kubectl(*two, "--force-conflicts", stdin=other)
    shown = yaml.safe_load(kubectl("get", "cm", "owned", "-o", "yaml", "--show-managed-fields"))
    assert [one["manager"] for one in shown["metadata"]["managedFields"]] == ["two"]
    assert "managedFields" not in kubectl("get", "cm", "owned", "-o", "yaml")
    kubectl("delete", "cm", "owned")


def test_an_object_of_client_side_apply_goes_over_to_server_side_apply(kubectl: Kubectl) -> None:
    applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: moved}\ndata: {a: '1', b: '2'}\n"
    kubectl("apply", "-f", "-", stdin=applied)
    kubectl("apply", "--server-side", "-f", "-", stdin=applied.replace("'1'", "'9'"))
    kubectl("apply", "--server-side", "-f", "-", stdin=applied.replace(", b: '2'", ""))
    assert json.loads(kubectl("get", "cm", "moved", "-o", "jsonpath={.data}")) == {"a": "1"}
    kubectl("delete", "cm", "moved")


def test_fields_are_explained_and_misspelt_ones_refused(kubectl: Kubectl, refused: Kubectl) -> None:
    assert "parallelTrialCount\t<integer>" in kubectl("explain", "experiment.spec")
    assert "command\t<[]string>" in kubectl("explain", "job.spec.template.spec.containers")
    assert "runtimeRef" in kubectl("explain", "trainjob.spec")
    misspelt = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containres: []}\n"
    assert 'unknown field "spec.containres"' in refused("apply", "-f", "-", stdin=misspelt)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("deployments.spec.template.spec.containers", "command\t<[]string>"),
        ("services.spec.ports", "port\t<integer>"),
        ("pvc.spec", "accessModes\t<[]string>"),
        ("crds.spec.names", "shortNames\t<[]string>"),
        ("nodes.status", "allocatable\t<map[string]string>"),
        ("roles.rules", "verbs\t<[]string>"),
        ("trials.spec.parameterAssignments", "value\t<string>"),
        ("suggestions.spec", "requests\t<integer>"),
        ("experiment.status.conditions", "lastTransitionTime\t<string>"),
        ("pytorchjob.spec.runPolicy", "cleanPodPolicy\t<string>"),
        ("serviceaccount", "secrets\t<[]Object>"),
        ("event.involvedObject", "namespace\t<string>"),
        ("namespace.status", "phase\t<string>"),
    ],
)
def test_fields_of_kinds_that_nobody_checks_are_explained(kubectl: Kubectl, path: str, field: str) -> None:
    assert field in kubectl("explain", path)


def test_who_asks_may_do_everything(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    assert "*.*" in kubectl("auth", "can-i", "--list")
    assert "system:masters" in kubectl("auth", "whoami")
    kubectl("create", "role", "reader", "--verb=get", "--resource=pods")
    kubectl("create", "rolebinding", "reads", "--role=reader", "--serviceaccount=default:x")
    assert kubectl("get", "rolebinding", "reads", "--no-headers").split()[:2] == ["reads", "Role/reader"]
    kubectl("delete", "role,rolebinding", "--all")


def test_a_job_is_created_described_and_deleted_in_each_way(kubectl: Kubectl) -> None:
    kubectl("create", "job", "once", "--image=busybox", "--", "sh", "-c", "echo hi")
    kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=30s")
    assert "Created pod: once-" in kubectl("describe", "job", "once")
    pod = kubectl("get", "pods", "-l", "job-name=once", "-o", "name").strip()
    assert "Controlled By:  Job/once" in kubectl("describe", pod)
    assert "Started container once" in kubectl("events", "--for", pod)
    assert "Ready" in kubectl("get", "nodes")
    assert "Allocatable:" in kubectl("describe", "nodes")
    kubectl("delete", "job", "once", "--cascade=orphan")
    assert kubectl("get", pod, "-o", "jsonpath={.metadata.ownerReferences}") == ""
    kubectl("delete", pod)
    kubectl("create", "job", "long", "--image=busybox", "--", "sleep", "60")
    kubectl("delete", "job", "long", "--cascade=foreground", "--timeout=30s")
    assert kubectl("get", "pods", "-l", "job-name=long", "-o", "name") == ""


def test_an_object_is_edited_replaced_and_compared(kubectl: Kubectl, refused: Kubectl) -> None:
    kubectl("create", "configmap", "e", "--from-literal=colour=red")
    kubectl("edit", "configmap", "e", EDITOR="sed -i s/red/blue/")
    assert kubectl("get", "configmap", "e", "-o", "jsonpath={.data.colour}") == "blue"
    shown = kubectl("get", "configmap", "e", "-o", "yaml")
    assert "+  colour: green" in refused("diff", "-f", "-", stdin=shown.replace("blue", "green"))
    kubectl("replace", "-f", "-", stdin=shown.replace("blue", "green"))
    assert "the object has been modified" in refused("replace", "-f", "-", stdin=shown)
    kubectl("label", "configmap", "e", "team=x")
    kubectl("label", "configmap", "--all", "team-")
    assert kubectl("get", "configmap", "-l", "team", "-o", "name") == ""
    for index in range(3):
        kubectl("create", "configmap", f"e{index}")
    assert len(kubectl("get", "configmap", "--chunk-size=2", "-o", "name").splitlines()) >= 4
    kubectl("delete", "configmap", "--all")


def test_only_what_changes_from_now_on_is_watched(
    plane: ControlPlane, kubectl: Kubectl, environment: dict[str, str]
) -> None:
    kubectl("create", "configmap", "before")
    opened = plane.requests["watch", "configmaps"]
    command = [str(KUBECTL), "get", "configmap", "--watch-only", "--no-headers"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        wait_for(lambda: plane.requests["watch", "configmaps"] > opened)
        kubectl("create", "configmap", "after")
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[0] == "after"
        watching.terminate()
    kubectl("delete", "configmap", "--all")


def test_a_deployment_is_rolled_out_paused_scaled_and_rolled_back(kubectl: Kubectl, refused: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=busybox", "--replicas=2", "--", "sleep", "60")
    assert 'deployment "web" successfully rolled out' in kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    kubectl("set", "env", "deploy/web", "WORD=b")
    assert 'deployment "web" successfully rolled out' in kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert kubectl("rollout", "history", "deploy/web").split()[-4:] == ["1", "<none>", "2", "<none>"]
    assert "WORD:\tb" in kubectl("rollout", "history", "deploy/web", "--revision=2")
    kubectl("rollout", "undo", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert kubectl("rollout", "history", "deploy/web").split()[-4:] == ["2", "<none>", "3", "<none>"]
    kubectl("rollout", "restart", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    kubectl("rollout", "pause", "deploy/web")
    assert "can't restart paused deployment" in refused("rollout", "restart", "deploy/web")
    kubectl("rollout", "resume", "deploy/web")
    kubectl("scale", "deploy/web", "--replicas=3", "--current-replicas=2")
    kubectl("wait", "--for=jsonpath={.status.availableReplicas}=3", "deploy/web", "--timeout=30s")
    assert kubectl("get", "deploy", "web", "--no-headers").split()[:4] == ["web", "3/3", "3", "3"]
    wide = kubectl("get", "rs", "-o", "wide", "--no-headers").splitlines()
    assert sorted(line.split()[1:4] for line in wide) == [["0", "0", "0"], ["0", "0", "0"], ["3", "3", "3"]]
    assert all("busybox" in line and "app=web,pod-template-hash=" in line for line in wide)
    described = kubectl("describe", "deployment", "web")
    assert "NewReplicaSetAvailable" in described
    assert "Scaled up replica set web-" in described
    assert "Controlled By:  Deployment/web" in kubectl("describe", "rs", "-l", "app=web")
    shown = kubectl("get", "deploy", "web", "-o", "yaml")
    told = refused("replace", "-f", "-", stdin=shown.replace("replicas: 3", "replica: 3"))
    assert 'unknown field "spec.replica"' in told
    assert "scale" in kubectl("get", "--raw", "/apis/apps/v1")
    kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert kubectl("get", "pods", "-l", "app=web", "-o", "name") == ""
