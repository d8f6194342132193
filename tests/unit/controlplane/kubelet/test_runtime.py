"""The runtime process by itself: what it starts, what it tells, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_llmtune.controlplane.kubelet.runtime import processes
from airflow_llmtune.controlplane.kubelet.runtime.protocol import ContainerSpec
from airflow_llmtune.controlplane.kubelet.runtime_client import RuntimeClient, StartError
from nodes import dead, is_alive, written_pids
from waiting import eventually


class Runtime:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = RuntimeClient(folder, outage_seconds=0.0, is_temporary=False)

    def spec(self, script: str, name: str = "main", **changes: Any) -> ContainerSpec:
        return ContainerSpec(
            **{
                "id": f"uid/{name}/0",
                "argv": ["sh", "-c", script],
                "env": {"PATH": os.environ["PATH"]},
                "cwd": str(self.folder),
                "log": str(self.folder / f"{name}.log"),
                **changes,
            }
        )

    def socket_folder(self) -> Path:
        record = (self.folder / "runtime.json").read_text()
        return Path(record.partition('"socket": "')[2].partition('"')[0]).parent


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(tmp_path)
    yield made
    await made.client.stop()


async def test_the_number_of_a_container_is_that_of_its_program(runtime: Runtime) -> None:
    process = await runtime.client.start(runtime.spec("echo $$; exec sleep 60"))
    log = runtime.folder / "main.log"
    assert int(await eventually(log.read_text)) == process.pid
    await process.stop(1)
    assert (await process.wait()).code == 143
    assert process.pid is None


async def test_many_at_once_all_tell_their_end(runtime: Runtime) -> None:
    async def run(number: int) -> int:
        process = await runtime.client.start(runtime.spec(f"sleep 0.1; exit {number}", f"c{number}"))
        return (await process.wait()).code

    assert await asyncio.gather(*(run(number) for number in range(40))) == list(range(40))


async def test_a_container_with_too_many_processes_is_ended(runtime: Runtime) -> None:
    script = "for i in 1 2 3 4 5 6; do sleep 60 & done; wait"
    process = await runtime.client.start(runtime.spec(script, most_processes=5))
    ended = await process.wait()
    assert (ended.code, ended.reason, ended.message) == (137, "Error", "the container had more than 5 processes")


async def test_a_runtime_that_can_start_no_more_goes_on_with_what_it_has(runtime: Runtime) -> None:
    first = await runtime.client.start(runtime.spec("sleep 0.3; exit 7"))
    number = psutil.Process(first.pid).parent().ppid()
    before = resource.prlimit(number, resource.RLIMIT_NOFILE)
    resource.prlimit(number, resource.RLIMIT_NOFILE, (3, before[1]))
    with pytest.raises(StartError, match="cannot start a process: Too many open files"):
        await runtime.client.start(runtime.spec("true", "second"))
    resource.prlimit(number, resource.RLIMIT_NOFILE, before)
    assert (await first.wait()).code == 7
    third = await runtime.client.start(runtime.spec("true", "third"))
    assert (await third.wait()).code == 0


@pytest.mark.parametrize("kernel_lists_children", [True, False])
def test_all_processes_below_one_are_found(monkeypatch: pytest.MonkeyPatch, kernel_lists_children: bool) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: kernel_lists_children)
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        sleeper = int(shell.stdout.readline())
        found = processes.descendants(os.getpid())
        processes.kill([sleeper, shell.pid])
    assert found.index(shell.pid) < found.index(sleeper)


async def test_a_shim_that_is_killed_takes_its_container_with_it(runtime: Runtime, tmp_path: Path) -> None:
    script = f"setsid sleep 60 & echo $! > {tmp_path}/pid; sleep 60"
    process = await runtime.client.start(runtime.spec(script))
    (orphan,) = await eventually(lambda: written_pids(tmp_path / "pid"))
    first = process.pid or 0
    shim = int(Path(f"/proc/{first}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(shim, signal.SIGKILL)
    assert (await process.wait()).code == 137
    await dead(first, orphan)
    assert (await (await runtime.client.start(runtime.spec("exit 4", "next"))).wait()).code == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"argv": ["no-such"]}, 'exec: "no-such": executable file not found in $PATH'),
        ({"log": "/no/such/folder/main.log"}, "log /no/such/folder/main.log: No such file or directory"),
        ({"argv": ["sh", "a\0b"]}, "exec: 'sh': embedded null byte"),
        ({"argv": ["/tmp"]}, 'exec: "/tmp": Permission denied'),
    ],
)
async def test_what_cannot_be_started_is_told(runtime: Runtime, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError) as refused:
        await runtime.client.start(runtime.spec("", **changes))
    assert str(refused.value) == message


async def test_words_and_variables_arrive_as_they_are(runtime: Runtime) -> None:
    env = {"PATH": os.environ["PATH"], "ODD": "new\nline \udc80 ü", "LONG": "x" * 100_000}
    process = await runtime.client.start(runtime.spec('printf %s "$ODD"; echo ${#LONG}', env=env))
    await process.wait()
    assert (runtime.folder / "main.log").read_bytes() == b"new\nline " + b"\x80 \xc3\xbc100000\n"


async def test_nothing_is_left_of_it(runtime: Runtime) -> None:
    process = await runtime.client.start(runtime.spec("sleep 60 & setsid sleep 60 & sleep 60"))
    pid, folder = process.pid or 0, runtime.socket_folder()
    await runtime.client.stop()
    assert not is_alive(pid)
    assert not folder.exists()
    assert not (runtime.folder / "runtime.json").exists()
    assert (runtime.folder / "runtime.log").read_text() == ""


async def test_a_runtime_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    client = RuntimeClient(tmp_path, outage_seconds=0.0, is_temporary=False)
    (tmp_path / "runtime.json").mkdir()
    with pytest.raises(RuntimeError, match=r"the container runtime did not start; .*runtime\.log says why"):
        await client.be_ready()
    assert "IsADirectoryError" in (tmp_path / "runtime.log").read_text()


async def test_the_folder_for_temporary_files_may_have_a_long_name(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    process = await runtime.client.start(runtime.spec("exit 4"))
    assert (await process.wait()).code == 4


async def test_a_record_of_a_runtime_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "runtime.json").write_text(f'{{"socket": "{tmp_path}/s", "mark": "old"}}')
    client = RuntimeClient(tmp_path, outage_seconds=0.0, is_temporary=False)
    assert await client.adopt() == {}
    assert not (tmp_path / "runtime.json").exists()
    (tmp_path / "runtime.json").write_text("{")
    assert await client.adopt() == {}
