"""The services over real channels. Messages are encoded by hand: a mistake in our descriptors cannot cancel out."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from airflow_llmtune.controlplane.apiserver.errors import insufficient_storage
from airflow_llmtune.controlplane.apiserver.kinds import TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.db_manager import DBManager, MetricLog, NoReportJournal
from airflow_llmtune.controlplane.grpc_services.db_manager_server import DBManagerServer
from airflow_llmtune.controlplane.grpc_services.listener import DB_MANAGER_PORT, EARLY_STOPPING_PORT, LazyListener

STAMP = "2026-11-22T09:00:00Z"


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: str | bytes) -> bytes:
    """A field of text or of a message: wire type 2."""
    body = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(body)) + body


def metric_log(stamp: str, name: str, value: str) -> bytes:
    return (field(1, stamp) if stamp else b"") + field(2, field(1, name) + field(2, value))


def observation_log(*logs: tuple[str, str, str]) -> bytes:
    return b"".join(field(1, metric_log(*log)) for log in logs)


def report_of(trial: str, *logs: tuple[str, str, str]) -> bytes:
    return field(1, trial) + field(2, observation_log(*logs))


class Client:
    """Calls from another thread over a channel of its own."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, request: bytes) -> bytes:
        with grpc.insecure_channel(self._address, [("grpc.max_receive_message_length", -1)]) as channel:
            return bytes(channel.unary_unary(method)(request, timeout=20))

    async def db(self, method: str, request: bytes) -> bytes:
        return await asyncio.to_thread(self.call, f"/api.v1.beta1.DBManager/{method}", request)

    async def health(self, service: str = "") -> bytes:
        request = field(1, service) if service else b""
        return await asyncio.to_thread(self.call, "/grpc.health.v1.Health/Check", request)

    async def refused(self, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as raised:
            await self.db(method, request)
        return raised.value.code(), raised.value.details()


@pytest.fixture
def db_manager() -> DBManager:
    return DBManager()


@pytest.fixture
async def client(registry: Registry, db_manager: DBManager) -> AsyncIterator[Client]:
    for name in ("trial", "other"):
        registry.create(TRIAL, {"metadata": {"name": name, "namespace": "default"}, "spec": {}})
    server = DBManagerServer(registry, db_manager)
    yield Client(await server.start("a test"))
    await server.stop()


async def test_a_report_is_stored_and_entries_without_a_time_are_dropped(client: Client, db_manager: DBManager) -> None:
    request = report_of("trial", (STAMP, "loss", "0.5"), ("", "loss", "dropped"), (STAMP, "acc", "text"))
    assert await client.db("ReportObservationLog", request) == b""
    assert db_manager.get_observation_log("trial") == [MetricLog(STAMP, "loss", "0.5"), MetricLog(STAMP, "acc", "text")]
    assert await client.db("ReportObservationLog", field(1, "trial")) == b""


async def test_logs_come_back_by_time_in_the_form_of_katibs_database(client: Client, db_manager: DBManager) -> None:
    stored = [
        ("2026-11-22T10:00:00.123456789+01:00", "loss", "2"),
        ("0001-01-01T00:00:00Z", "loss", "1"),
        ("2026-11-22T09:00:00.5Z", "acc", "3"),
    ]
    db_manager.report_observation_log("trial", [MetricLog(*one) for one in stored])
    shown = [
        ("0001-01-01T00:00:00Z", "loss", "1"),
        ("2026-11-22T09:00:00.123456Z", "loss", "2"),
        ("2026-11-22T09:00:00.5Z", "acc", "3"),
    ]
    get = field(1, "trial")
    assert await client.db("GetObservationLog", get) == field(1, observation_log(*shown))
    assert await client.db("GetObservationLog", get + field(2, "acc")) == field(1, observation_log(shown[2]))
    bounds = field(3, "2026-11-22T09:00:00Z") + field(4, "2026-11-22T09:00:00.2Z")
    assert await client.db("GetObservationLog", get + bounds) == field(1, observation_log(shown[1]))
    assert await client.db("GetObservationLog", field(1, "unknown")) == field(1, b"")


async def test_the_log_of_one_trial_is_deleted(client: Client, db_manager: DBManager) -> None:
    for name in ("trial", "other"):
        db_manager.report_observation_log(name, [MetricLog(STAMP, "loss", "1")])
    assert await client.db("DeleteObservationLog", field(1, "trial")) == b""
    assert (db_manager.get_observation_log("trial"), len(db_manager.get_observation_log("other"))) == ([], 1)


async def test_what_cannot_be_stored_is_refused_as_a_whole(client: Client, db_manager: DBManager) -> None:
    nobody = await client.refused("ReportObservationLog", report_of("nobody", (STAMP, "loss", "1")))
    assert nobody == (grpc.StatusCode.NOT_FOUND, "there is no Trial 'nobody'")
    for stamp in ("yesterday", "0001-01-01T00:00:00+01:00"):
        code, text = await client.refused(
            "ReportObservationLog", report_of("trial", (STAMP, "loss", "1"), (stamp, "loss", "2"))
        )
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert stamp in text
    assert db_manager.get_observation_log("trial") == []
    code, _ = await client.refused("GetObservationLog", field(1, "trial") + field(3, "yesterday"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await client.refused("Unknown", b"")
    assert code == grpc.StatusCode.UNIMPLEMENTED


class FullDisk(NoReportJournal):
    def add(self, trial: str, report: str, outdated: int) -> None:
        raise insufficient_storage("no room")


async def test_a_full_disk_is_told(registry: Registry) -> None:
    registry.create(TRIAL, {"metadata": {"name": "trial", "namespace": "default"}, "spec": {}})
    server = DBManagerServer(registry, DBManager(FullDisk()))
    client = Client(await server.start("full"))
    refused = await client.refused("ReportObservationLog", report_of("trial", (STAMP, "loss", "1")))
    await server.stop()
    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")


async def test_health_is_told_for_the_names_katib_probes(client: Client) -> None:
    for service in ("", "grpc.health.v1.Health", "manager.v1beta1.Suggestion", "manager.v1beta1.EarlyStopping"):
        assert await client.health(service) == b"\x08\x01", "SERVING"
    with pytest.raises(grpc.RpcError) as raised:
        await client.health("unknown")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_health_is_told_on_the_port_of_early_stopping_too(client: Client) -> None:
    host, _, port = client._address.rpartition(":")
    if port == str(DB_MANAGER_PORT):  # Not where only 127.0.0.1 can be bound.
        assert await Client(f"{host}:{EARLY_STOPPING_PORT}").health("manager.v1beta1.EarlyStopping") == b"\x08\x01"


async def test_many_report_at_once_and_nothing_is_lost(client: Client, db_manager: DBManager) -> None:
    def report(number: int) -> bytes:
        logs = [(STAMP, "loss", f"{number}.{index}") for index in range(50)]
        return client.call("/api.v1.beta1.DBManager/ReportObservationLog", report_of("trial", *logs))

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, report, number) for number in range(40)))
    values = {entry.value for entry in db_manager.get_observation_log("trial")}
    assert values == {f"{number}.{index}" for number in range(40) for index in range(50)}


async def test_a_report_of_megabytes_is_taken(client: Client, db_manager: DBManager) -> None:
    logs = [(STAMP, "loss", f"{'0' * 200}{index}") for index in range(30_000)]
    await client.db("ReportObservationLog", report_of("trial", *logs))
    assert [entry.value for entry in db_manager.get_observation_log("trial")] == [value for _, _, value in logs]
    shown = await client.db("GetObservationLog", field(1, "trial"))
    assert shown == field(1, observation_log(*logs))


async def test_a_report_that_would_hold_up_the_loop_is_refused(client: Client, db_manager: DBManager) -> None:
    code, _ = await client.refused("ReportObservationLog", report_of("trial", (STAMP, "loss", "0" * (17 << 20))))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert db_manager.get_observation_log("trial") == []


async def test_the_same_seed_gives_the_same_address_and_a_taken_one_is_passed_over(
    registry: Registry, db_manager: DBManager
) -> None:
    servers = [DBManagerServer(registry, db_manager) for _ in range(3)]
    first = await servers[0].start("seed")
    second = await servers[1].start("seed")
    await servers[0].stop()
    third = await servers[2].start("seed")
    await asyncio.gather(*(server.stop() for server in servers[1:]))
    assert first == third != second
    assert {address.rpartition(":")[2] for address in (first, second)} == {"6789"}
    assert first.startswith("127.")


async def test_stopping_ends_open_connections_and_leaves_no_socket(registry: Registry, db_manager: DBManager) -> None:
    server = DBManagerServer(registry, db_manager)
    address = await server.start("stopping")
    client = Client(address)
    with grpc.insecure_channel(address) as channel:
        await asyncio.to_thread(lambda: channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20))
        await server.stop()
        with pytest.raises(grpc.RpcError):
            await client.health()
    host, _, port = address.rpartition(":")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # What was connected lingers for a while.
        free.bind((host, int(port)))
    await server.stop()


async def test_a_client_that_says_nothing_or_nonsense_does_no_harm(client: Client) -> None:
    host, _, port = client._address.rpartition(":")
    silent, noisy = (socket.create_connection((host, int(port))) for _ in range(2))
    noisy.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    assert await client.health() == b"\x08\x01"
    silent.close()
    noisy.close()
    assert await client.health() == b"\x08\x01"


async def test_a_server_that_cannot_be_started_only_ends_the_connection() -> None:
    async def fail() -> tuple[Any, int]:
        raise OSError("no")

    listener = LazyListener(fail)
    host, _, port = (await listener.start("failing")).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await listener.stop()


def test_two_loops_in_one_process_can_serve(registry: Registry) -> None:
    registry.create(TRIAL, {"metadata": {"name": "trial", "namespace": "default"}, "spec": {}})
    managers = [DBManager(), DBManager()]

    async def serve(db_manager: DBManager, ready: Callable[[str], None], done: threading.Event) -> None:
        server = DBManagerServer(registry, db_manager)
        ready(await server.start(f"loop {id(db_manager)}"))
        await asyncio.to_thread(done.wait)
        await server.stop()

    done, addresses = threading.Event(), []
    threads = [
        threading.Thread(target=lambda one=one: asyncio.run(serve(one, addresses.append, done))) for one in managers
    ]
    for thread in threads:
        thread.start()
    try:
        while len(addresses) < 2:
            threading.Event().wait(0.01)
        for _ in range(20):
            for address in addresses:
                request = report_of("trial", (STAMP, "loss", "1"))
                Client(address).call("/api.v1.beta1.DBManager/ReportObservationLog", request)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert [len(one.get_observation_log("trial")) for one in managers] == [20, 20]
