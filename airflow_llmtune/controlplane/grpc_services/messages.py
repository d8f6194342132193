"""The protobuf messages of ``api.v1.beta1.DBManager`` and ``grpc.health.v1.Health``, with Katib's field numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_TEXT = _Field.TYPE_STRING

# Message -> its fields by number: a name alone is a text; with a colon, the message it holds; "[]", any number of it.
_DB_MANAGER = {
    "Metric": ("name", "value"),
    "MetricLog": ("time_stamp", "metric:Metric"),
    "ObservationLog": ("metric_logs:[]MetricLog",),
    "ReportObservationLogRequest": ("trial_name", "observation_log:ObservationLog"),
    "ReportObservationLogReply": (),
    "GetObservationLogRequest": ("trial_name", "metric_name", "start_time", "end_time"),
    "GetObservationLogReply": ("observation_log:ObservationLog",),
    "DeleteObservationLogRequest": ("trial_name",),
    "DeleteObservationLogReply": (),
}
_HEALTH = {"HealthCheckRequest": ("service",)}

SERVING = 1


def _field(package: str, number: int, text: str) -> Any:
    name, _, type_ = text.partition(":")
    repeated = type_.startswith("[]")
    field = _Field(name=name, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL)
    if type_:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{type_.removeprefix('[]')}"
    else:
        field.type = _TEXT
    return field


def _file(package: str, messages: Mapping[str, tuple[str, ...]]) -> Any:
    made = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = made.message_type.add(name=name)
        message.field.extend(_field(package, number, text) for number, text in enumerate(fields, 1))
    return made


def _health_file() -> Any:
    made = _file("grpc.health.v1", _HEALTH)
    response = made.message_type.add(name="HealthCheckResponse")
    statuses = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        statuses.value.add(name=name, number=number)
    type_name = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, label=1, type=_Field.TYPE_ENUM, type_name=type_name)
    return made


# A pool of its own: a Katib SDK in the same process registers the same names in the default one.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file("api.v1.beta1", _DB_MANAGER))
_POOL.Add(_health_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


ReportObservationLogRequest = _message("api.v1.beta1.ReportObservationLogRequest")
ReportObservationLogReply = _message("api.v1.beta1.ReportObservationLogReply")
GetObservationLogRequest = _message("api.v1.beta1.GetObservationLogRequest")
GetObservationLogReply = _message("api.v1.beta1.GetObservationLogReply")
DeleteObservationLogRequest = _message("api.v1.beta1.DeleteObservationLogRequest")
DeleteObservationLogReply = _message("api.v1.beta1.DeleteObservationLogReply")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
