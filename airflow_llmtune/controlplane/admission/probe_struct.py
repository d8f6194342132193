"""The fields of a container's probes and lifecycle hooks."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, Struct, fields_of

_HEADERS = ListOf(Struct("HTTPHeader", fields_of({"string": "name value"})))
_EXEC = Struct("ExecAction", {"command": ListOf("string")})
# A port is a number or a name.
_HTTP_GET = Struct(
    "HTTPGetAction", {"path": "string", "port": ANY, **fields_of({"string": "host scheme"}), "httpHeaders": _HEADERS}
)
_TCP_SOCKET = Struct("TCPSocketAction", {"port": ANY, "host": "string"})
_GRPC = Struct("GRPCAction", {"port": "int32", "service": "string"})
_SLEEP = Struct("SleepAction", {"seconds": "int64"})
_HOOK = Struct("LifecycleHandler", {"exec": _EXEC, "httpGet": _HTTP_GET, "tcpSocket": _TCP_SOCKET, "sleep": _SLEEP})

PROBE = Struct(
    "Probe",
    {
        "exec": _EXEC,
        "httpGet": _HTTP_GET,
        "tcpSocket": _TCP_SOCKET,
        "grpc": _GRPC,
        **fields_of(
            {
                "int32": "initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold",
                "int64": "terminationGracePeriodSeconds",
            }
        ),
    },
)
LIFECYCLE = Struct("Lifecycle", {"postStart": _HOOK, "preStop": _HOOK})
