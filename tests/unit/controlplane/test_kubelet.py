from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EVENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet import Kubelet
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer
from objects import Object
from waiting import eventually


class Node:
    """A running kubelet and short ways to use it."""

    def __init__(self, registry: Registry, kubelet: Kubelet) -> None:
        self.registry = registry
        self.kubelet = kubelet

    def create(self, script: str = "", *, name: str = "pod", container: Object | None = None, **spec: Any) -> Object:
        main = {"name": "main", "image": "busybox", "command": ["sh", "-c", script], **(container or {})}
        body = {"restartPolicy": "Never", "containers": [main], **spec}
        return self.registry.create(POD, {"metadata": {"name": name, "namespace": "default"}, "spec": body})

    def pod(self, name: str = "pod") -> Object | None:
        return self.registry.find(POD, "default", name)

    async def until(self, holds: Callable[[Object], Any], name: str = "pod") -> Object:
        return await eventually(lambda: pod if (pod := self.pod(name)) is not None and holds(pod) else None)

    async def end(self, name: str = "pod") -> Object:
        return await self.until(lambda pod: pod["status"]["phase"] in {"Succeeded", "Failed"}, name)

    async def gone(self, name: str = "pod") -> None:
        await eventually(lambda: self.pod(name) is None)

    def log(self, container: str = "main", **options: Any) -> str:
        return self.kubelet.read_log("default", "pod", container, **options).decode()


async def greet(container: InProcessContainer) -> int:
    container.write_log(b"waiting\n")
    await container.others_ended.wait()
    container.write_log(" ".join(container.args).encode())
    return 0


async def broken(container: InProcessContainer) -> int:
    raise RuntimeError("boom")


@pytest.fixture
async def node(registry: Registry, tmp_path: Path) -> AsyncIterator[Node]:
    functions = {"greeter": greet, "broken": broken}
    kubelet = Kubelet(registry, tmp_path, None, functions, restart_backoff_base_seconds=0.05)
    running = asyncio.create_task(kubelet.run())
    yield Node(registry, kubelet)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await kubelet.stop()


def terminated(pod: Object, index: int = 0) -> Object:
    found: Object = pod["status"]["containerStatuses"][index]["state"]["terminated"]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def two_pids(path: Path) -> list[int] | None:
    """The two that a script writes; None as long as one is missing."""
    words = path.read_text().split() if path.exists() else []
    return [int(word) for word in words] if len(words) >= 2 else None


async def dead(*pids: int) -> None:
    await eventually(lambda: not any(is_alive(pid) for pid in pids))


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
    pod = await node.until(lambda pod: pod["status"]["phase"] == "Running")
    status = pod["status"]["containerStatuses"][0]
    assert status["ready"] is True
    assert "startedAt" in status["state"]["running"]
    assert pod["status"]["podIP"] == "127.0.0.1"
    assert {one["type"]: one["status"] for one in pod["status"]["conditions"]}["Ready"] == "True"


async def test_both_outputs_are_logged_and_stay_until_the_pod_is_deleted(node: Node, tmp_path: Path) -> None:
    node.create("echo one; echo two >&2; echo three")
    await node.end()
    assert node.log() == "one\ntwo\nthree\n"
    assert node.log(tail_lines=2) == "two\nthree\n"
    assert node.log(tail_lines=0) == ""
    assert node.log(limit_bytes=5) == "one\nt"
    node.registry.delete(POD, "default", "pod")
    await eventually(lambda: not any((tmp_path / "pods").iterdir()))


async def test_a_log_can_be_followed_while_it_is_written(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    node.create(f"echo first; until [ -e {gate} ]; do sleep 0.02; done; echo last")
    await node.until(lambda pod: pod["status"]["phase"] == "Running")
    seen = b""
    async for added in node.kubelet.follow_log("default", "pod", "main"):
        seen += added
        if seen == b"first\n":
            gate.touch()
    assert seen == b"first\nlast\n"


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
    first, _, rest = node.log().partition("\n")
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
    assert node.log() == "1\n"
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
    assert node.log() == "0\n1\n"


async def test_a_failed_init_container_fails_the_pod(node: Node) -> None:
    init = [{"name": "init", "image": "x", "command": ["sh", "-c", "exit 4"]}]
    node.create("echo never", initContainers=init)
    pod = await node.end()
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert node.log() == ""


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
    assert node.log() == "try\n"
    assert node.log(previous=True) == "try\n"


async def test_an_unknown_image_is_not_pulled(registry: Registry, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    program = prefix / "bin" / "hello"
    program.write_text("#!/bin/sh\necho hello from $VIRTUAL_ENV\n")
    program.chmod(0o755)
    kubelet = Kubelet(registry, tmp_path, {"known": prefix}, {})
    running = asyncio.create_task(kubelet.run())
    node = Node(registry, kubelet)
    node.create(name="bad", container={"image": "unknown:v1"})
    node.create(container={"image": "known:v2", "command": ["hello"]})
    await node.end()
    assert node.log() == f"hello from {prefix}\n"
    pod = await node.until(lambda pod: pod["status"].get("containerStatuses"), "bad")
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] in {"ErrImagePull", "ImagePullBackOff"}
    assert 'image "unknown:v1" is not known here; known are: known' in waiting["message"]
    assert pod["status"]["phase"] == "Pending"
    running.cancel()
    await kubelet.stop()


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
    data = {"k": base64.b64encode(b"now").decode()}
    node.registry.create(SECRET, {"metadata": {"name": "late"}, "data": data}, "default")
    await node.end()
    assert node.log() == "now\n"


async def test_an_in_process_image_ends_after_the_processes(node: Node) -> None:
    containers = [
        {"name": "main", "image": "x", "command": ["sh", "-c", "sleep 0.1"]},
        {"name": "side", "image": "greeter:v1", "args": ["bye", "$(WHO)"], "env": [{"name": "WHO", "value": "all"}]},
    ]
    node.create(containers=containers)
    assert (await node.end())["status"]["phase"] == "Succeeded"
    assert node.log("side") == "waiting\nbye all"


async def test_a_fault_in_an_in_process_image_fails_only_the_pod(node: Node) -> None:
    node.create(containers=[{"name": "side", "image": "broken"}])
    assert (await node.end())["status"]["phase"] == "Failed"


async def test_a_pod_the_kubelet_cannot_run_fails_at_once(node: Node, tmp_path: Path) -> None:
    (tmp_path / "pods").write_text("a file where a folder has to be")
    node.create("sleep 60")
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "KubeletError")


async def test_the_pods_deadline_kills_it(node: Node) -> None:
    node.create("sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


async def test_deletion_lets_the_process_end_in_its_grace_period(node: Node, tmp_path: Path) -> None:
    ready, done = tmp_path / "ready", tmp_path / "done"
    node.create(f"trap 'touch {done}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done")
    await eventually(ready.exists)
    marked = node.registry.delete(POD, "default", "pod")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    await node.gone()
    assert done.exists()


async def test_a_process_that_ignores_the_signal_is_killed_with_all_it_started(node: Node, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; setsid sh -c 'echo $$$$; exec sleep 60' >> {pids} & echo $$$$ >> {pids}; wait; sleep 60"
    node.create(script, terminationGracePeriodSeconds=1)
    started = await eventually(lambda: two_pids(pids))
    node.registry.delete(POD, "default", "pod")
    await node.gone()
    await dead(*started)


async def test_a_pod_that_went_unseen_is_killed_too(node: Node, tmp_path: Path) -> None:
    node.create(f"echo $$$$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 60")
    await eventually((tmp_path / "pid").exists)
    node.registry.delete(POD, "default", "pod", grace_period_seconds=0)
    node.registry.store.compact()
    await dead(int((tmp_path / "pid").read_text()))


async def test_the_log_of_a_container_the_pod_does_not_have_is_refused(node: Node) -> None:
    node.create("true")
    for name in ("other", "../main"):
        with pytest.raises(ApiError, match=f"container {name} is not valid for pod pod"):
            node.log(name)
    await node.end()


async def test_what_a_container_leaves_running_ends_with_it(node: Node, tmp_path: Path) -> None:
    node.create(f"setsid sleep 60 & echo $! > {tmp_path}/pid")
    await node.end()
    await dead(int((tmp_path / "pid").read_text()))


async def test_the_start_is_told_as_an_event(node: Node) -> None:
    node.create("true")
    await node.end()
    events = node.registry.list(EVENT, "default")[0]
    assert [one["message"] for one in events if one["reason"] == "Started"] == ["Started container main"]


PLANE = """
    import asyncio, sys
    from pathlib import Path
    from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, POD
    from airflow_llmtune.controlplane.admission import KatibAdmission
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.kubelet import Kubelet
    from airflow_llmtune.controlplane.store import Store

    async def main():
        store = Store()
        registry = Registry(store, KatibAdmission(store))
        registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        script = "echo $$$$; setsid sh -c 'echo $$$$; exec sleep 300' & sleep 300"
        command = ["sh", "-c", f"({script}) > {sys.argv[1]}/pids"]
        spec = {"containers": [{"name": "main", "image": "x", "command": command}]}
        registry.create(POD, {"metadata": {"name": "pod", "namespace": "default"}, "spec": spec})
        await Kubelet(registry, Path(sys.argv[1])).run()

    asyncio.run(main())
"""


async def test_nothing_survives_a_control_plane_that_is_killed(tmp_path: Path) -> None:
    plane = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PLANE), str(tmp_path)])
    pids = tmp_path / "pids"
    started = await eventually(lambda: two_pids(pids))
    assert all(is_alive(pid) for pid in started)
    os.kill(plane.pid, signal.SIGKILL)
    plane.wait()
    await dead(*started)
