"""How containers are started, restarted and reported."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EVENT,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    SERVICE,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from nodes import Node, node_kubelet, running, terminated
from objects import Object


@pytest.mark.parametrize(
    ("script", "phase", "code", "reason"),
    [
        ("exit 0", "Succeeded", 0, "Completed"),
        ("exit 3", "Failed", 3, "Error"),
        ("kill -9 $$$$", "Failed", 137, "Error"),
        ("kill -15 $$$$", "Failed", 143, "Error"),
    ],
)
async def test_the_exit_code_becomes_the_pods_phase(
    node: Node, script: str, phase: str, code: int, reason: str
) -> None:
    node.create(script)
    pod = await node.end()
    assert pod["status"]["phase"] == phase
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (code, reason)
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "False"


async def test_a_running_pod_looks_like_one(node: Node) -> None:
    node.create("sleep 60")
    pod = await node.running()
    status = pod["status"]["containerStatuses"][0]
    assert status["ready"] is True
    assert "startedAt" in status["state"]["running"]
    assert pod["status"]["podIP"] == "127.0.0.1"
    assert {one["type"]: one["status"] for one in pod["status"]["conditions"]}["Ready"] == "True"


async def test_only_the_pods_own_environment_reaches_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "hidden")
    node.registry.create(
        SECRET,
        {"metadata": {"name": "keys"}, "data": {"token": base64.b64encode(b"s3cret").decode()}},
        "default",
    )
    node.registry.create(CONFIG_MAP, {"metadata": {"name": "conf"}, "data": {"MODE": "fast"}}, "default")
    node.registry.create(SERVICE, {"metadata": {"name": "job-master-0"}, "spec": {"clusterIP": "None"}}, "default")
    env = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)b $(NONE) $$(A)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "MASTER_ADDR", "value": "job-master-0"},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y", "optional": True}}},
    ]
    node.create(
        container={
            "command": ["sh", "-c"],
            "args": ["echo $B/$TOKEN/$NAME/$MODE/$MASTER_ADDR/$(A)/${OPTIONAL-unset}; env"],
            "env": env,
            "envFrom": [{"configMapRef": {"name": "conf"}}],
        }
    )
    await node.end()
    first, _, rest = (await node.log()).partition("\n")
    assert first == "ab $(NONE) $(A)/s3cret/pod/fast/127.0.0.1/a/unset"
    assert "hidden" not in rest


async def test_volumes_are_folders_and_mount_paths_in_texts_lead_there(node: Node, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    node.registry.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "claim"}, "spec": {}}, "default")
    node.registry.create(CONFIG_MAP, {"metadata": {"name": "conf"}, "data": {"a.txt": "text"}}, "default")
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host")}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "conf", "configMap": {"name": "conf"}},
    ]
    mounts = [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "host", "mountPath": "/host"},
        {"name": "claim", "mountPath": "/claim", "subPath": "sub"},
        {"name": "conf", "mountPath": "/conf"},
    ]
    script = "echo 1 >/scratch/x; cp /scratch/x /host/y; cat /conf/a.txt > $OUT; cat /scratch/x"
    container = {"volumeMounts": mounts, "env": [{"name": "OUT", "value": "/claim/z"}]}
    node.create(script, container=container, volumes=volumes)
    pod = await node.end()
    assert pod["status"]["phase"] == "Succeeded"
    assert await node.log() == "1\n"
    assert (tmp_path / "host" / "y").read_text() == "1\n"
    assert (tmp_path / "volumes" / "default" / "claim" / "sub" / "z").read_text() == "text"


async def test_the_termination_message_is_read_from_its_file(node: Node) -> None:
    env = [{"name": "LLMTUNE_TERMINATION_LOG", "value": "/dev/termination-log"}]
    node.create("echo ignored; printf done > $LLMTUNE_TERMINATION_LOG", container={"env": env})
    assert terminated(await node.end())["message"] == "done"


async def test_the_end_of_the_log_can_be_the_termination_message(node: Node) -> None:
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    node.create("echo why it failed; exit 1", container=policy)
    assert terminated(await node.end())["message"] == "why it failed\n"


async def test_init_containers_run_first_and_in_order(node: Node) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    init = [
        {"name": f"init{i}", "image": "x", "command": ["sh", "-c", f"echo {i} >> /v/f"], "volumeMounts": mounts}
        for i in range(2)
    ]
    node.create("cat /v/f", container={"volumeMounts": mounts}, initContainers=init, volumes=[{"name": "v"}])
    await node.end()
    assert await node.log() == "0\n1\n"


async def test_a_failed_init_container_fails_the_pod(node: Node) -> None:
    init = [{"name": "init", "image": "x", "command": ["sh", "-c", "exit 4"]}]
    node.create("echo never", initContainers=init)
    pod = await node.end()
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert "terminated" not in pod["status"]["containerStatuses"][0]["state"]


async def test_on_failure_restarts_until_it_succeeds(node: Node) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = "echo try; echo x >> /v/n; test $(wc -l < /v/n) -ge 3"
    node.create(
        script, container={"volumeMounts": mounts}, restartPolicy="OnFailure", volumes=[{"name": "v", "emptyDir": {}}]
    )
    pod = await node.end()
    status = pod["status"]["containerStatuses"][0]
    assert pod["status"]["phase"] == "Succeeded"
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert await node.log() == "try\n"
    assert await node.log(previous=True) == "try\n"


async def test_an_unknown_image_is_not_pulled(registry: Registry, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    program = prefix / "bin" / "hello"
    program.write_text("#!/bin/sh\necho hello from $VIRTUAL_ENV\n")
    program.chmod(0o755)
    async with running(registry, node_kubelet(registry, tmp_path, images={"known": prefix})) as node:
        node.create(name="bad", container={"image": "unknown:v1"})
        node.create(container={"image": "known:v2", "command": ["hello"]})
        await node.end()
        assert await node.log() == f"hello from {prefix}\n"
        pod = await node.until(lambda pod: "ImagePullBackOff" in str(pod["status"].get("containerStatuses")), "bad")
    unknown = 'image "unknown:v1" is not known here; known are: known'
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"] == {
        "reason": "ImagePullBackOff",
        "message": f'Back-off pulling image "unknown:v1": {unknown}',
    }
    assert pod["status"]["phase"] == "Pending"
    events = [one for one in registry.list(EVENT, "default")[0] if one["involvedObject"]["name"] == "bad"]
    assert sorted((one["type"], one["reason"], one["message"]) for one in events) == [
        ("Normal", "BackOff", 'Back-off pulling image "unknown:v1"'),
        ("Warning", "Failed", f"Failed to pull image: {unknown}"),
    ]


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"command": ["no-such-program"]}, 'exec: "no-such-program": executable file not found in $PATH'),
        ({"command": ["/no/such"]}, 'exec: "/no/such": no such file or directory'),
        ({"command": [], "args": ["x"]}, 'the entrypoint of image "busybox" is not known here: set command'),
    ],
)
async def test_a_command_that_cannot_start_says_why(node: Node, container: Object, message: str) -> None:
    node.create(container=container)
    ended = terminated(await node.end())
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (128, "StartError", message)


async def test_a_missing_secret_holds_the_container_until_it_is_there(node: Node) -> None:
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
    node.create("echo $X", container={"env": env})
    pod = await node.until(lambda pod: pod["status"].get("containerStatuses"))
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}
    (said,) = [one for one in node.registry.list(EVENT, "default")[0] if one["type"] == "Warning"]
    assert (said["reason"], said["message"]) == ("Failed", 'Error: secret "late" not found')
    data = {"k": base64.b64encode(b"now").decode()}
    node.registry.create(SECRET, {"metadata": {"name": "late"}, "data": data}, "default")
    await node.end()
    assert await node.log() == "now\n"


async def test_the_start_is_told_as_an_event(node: Node) -> None:
    node.create("true")
    await node.end()
    events = node.registry.list(EVENT, "default")[0]
    assert [one["message"] for one in events if one["reason"] == "Started"] == ["Started container main"]
