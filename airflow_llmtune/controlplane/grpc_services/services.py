"""What the services do, called by gRPC on the control plane's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from typing import Any

import grpc
from grpc import aio

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.db_manager import DBManager, MetricLog, parse_time
from airflow_llmtune.controlplane.grpc_services import messages

Context = Any
"""``grpc.aio.ServicerContext``; its ``abort`` raises."""

# What a Suggestion's pod is probed by, its early stopping container, and the DB manager itself.
_HEALTHY = {"", "grpc.health.v1.Health", "manager.v1beta1.Suggestion", "manager.v1beta1.EarlyStopping"}

# Katib's own limit is 2 GiB. The library decodes on the loop, which may not stand still for long; this is room for
# more entries than are kept of a Trial.
_LONGEST_MESSAGE_BYTES = 16 << 20
_SMALL_BYTES = 16 << 10
_BATCH = 1000


@dataclass(frozen=True)
class DBManagerService:
    db_manager: DBManager
    trial_exists: Callable[[str], bool]
    """Whether any namespace has a Trial of this name: the protocol knows no namespaces."""

    async def report(self, request: Any, context: Context) -> Any:
        if not self.trial_exists(request.trial_name):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no Trial {request.trial_name!r}")
        try:
            logs = await _off_loop(request, lambda: _checked(request.observation_log.metric_logs))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Error parsing start time {error}")
        for start in range(0, len(logs), _BATCH):
            self.db_manager.report_observation_log(request.trial_name, logs[start : start + _BATCH])
            await asyncio.sleep(0)
        return messages.ReportObservationLogReply()

    async def get(self, request: Any, context: Context) -> Any:
        for name in ("start_time", "end_time"):
            await _check_time(getattr(request, name), context)
        logs = self.db_manager.get_observation_log(
            request.trial_name, request.metric_name, request.start_time, request.end_time
        )
        return await asyncio.to_thread(_reply, logs) if len(logs) > _BATCH else _reply(logs)

    async def delete(self, request: Any, context: Context) -> Any:  # noqa: ARG002  gRPC's signature
        self.db_manager.delete_observation_log(request.trial_name)
        return messages.DeleteObservationLogReply()


async def check_health(request: Any, context: Context) -> Any:
    if request.service not in _HEALTHY:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r} here")
    return messages.HealthCheckResponse(status=messages.SERVING)


def make_server(service: DBManagerService) -> Any:
    """A server without an address yet."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", _LONGEST_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),
    ]
    server = aio.server(options=options)
    methods = {
        "ReportObservationLog": _unary(service.report, messages.ReportObservationLogRequest),
        "GetObservationLog": _unary(service.get, messages.GetObservationLogRequest),
        "DeleteObservationLog": _unary(service.delete, messages.DeleteObservationLogRequest),
    }
    _add(server, "api.v1.beta1.DBManager", methods)
    _add(server, "grpc.health.v1.Health", {"Check": _unary(check_health, messages.HealthCheckRequest)})
    return server


def _unary(behaviour: Callable[[Any, Context], Awaitable[Any]], request: Any) -> Any:
    async def answer(message: Any, context: Context) -> Any:
        try:
            return await behaviour(message, context)
        except ApiError as error:  # Of the state directory.
            is_full = error.code == HTTPStatus.INSUFFICIENT_STORAGE
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if is_full else grpc.StatusCode.INTERNAL
            await context.abort(code, error.message)

    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, lambda reply: reply.SerializeToString())


def _add(server: Any, name: str, methods: Mapping[str, Any]) -> None:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))


async def _off_loop(request: Any, work: Callable[[], list[MetricLog]]) -> list[MetricLog]:
    return await asyncio.to_thread(work) if request.ByteSize() > _SMALL_BYTES else work()


def _checked(logs: Iterable[Any]) -> list[MetricLog]:
    """Entries without a time are dropped; raises ``ValueError`` when one is not a time, before any is stored."""
    read = [MetricLog(one.time_stamp, one.metric.name, one.metric.value) for one in logs if one.time_stamp]
    for entry in read:
        _parse(entry.time_stamp)
    return read


async def _check_time(text: str, context: Context) -> None:
    try:
        if text:
            _parse(text)
    except ValueError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Error parsing start time {error}")


def _parse(text: str) -> None:
    try:
        parse_time(text)
    except OverflowError as error:  # The first or last day of all time, shifted beyond it by its zone.
        raise ValueError(f"{text}: {error}") from error


def _reply(logs: Iterable[MetricLog]) -> Any:
    reply = messages.GetObservationLogReply()
    reply.observation_log.SetInParent()
    for entry in logs:
        added = reply.observation_log.metric_logs.add(time_stamp=_stored_time(entry.time_stamp))
        added.metric.name, added.metric.value = entry.name, entry.value
    return reply


def _stored_time(text: str) -> str:
    """As it comes back from Katib's database: UTC, to the microsecond, without zeros at the end."""
    moment = parse_time(text).astimezone(UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment.replace(microsecond=0, tzinfo=None).isoformat()}{fraction}Z"
