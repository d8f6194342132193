"""Asks gRPC's health service how a server is. Loaded when a probe does so first: gRPC takes long to import."""

from __future__ import annotations

import grpc

from airflow_llmtune.controlplane.grpc_services.messages import SERVING, HealthCheckRequest, HealthCheckResponse

_METHOD = "/grpc.health.v1.Health/Check"
# No other probe's failed attempt to connect is to count for this one.
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


async def health_complaint(address: str, service: str, seconds: float) -> str:
    """Empty when it serves."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        check = channel.unary_unary(
            _METHOD,
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await check(HealthCheckRequest(service=service), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return _complaint(error, seconds)
    if answer.status == SERVING:
        return ""
    name = HealthCheckResponse.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[answer.status].name
    return f'service unhealthy (responded with "{name}")'


def _complaint(error: grpc.aio.AioRpcError, seconds: float) -> str:
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            protocol = "the grpc health protocol (grpc.health.v1.Health)"
            return f"error: this server does not implement {protocol}: {error.details()}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {seconds:g}s"
        case code:
            name = code.name.title().replace("_", "")
            return f"error: health rpc probe failed: rpc error: code = {name} desc = {error.details()}"
