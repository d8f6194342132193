"""Airflow connections as pods get them: a Kubernetes Secret, and variables that refer to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow_llmtune.resources.own_name import OWN_NAME
from airflow_llmtune.resources.redaction import is_secret

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = [
    "AWS",
    "ENDPOINT",
    "ENDPOINT_TOKEN",
    "HUB",
    "Connection",
    "Credentials",
    "argument_of",
    "read_connection",
]

# The arguments that name a connection.
HUB, AWS, ENDPOINT = "hub_conn_id", "aws_conn_id", "endpoint_conn_id"
# What a served model asks for; no pod gets it.
ENDPOINT_TOKEN = "TOKEN"  # noqa: S105  the name of a variable
# A key pair has none. Always referred to, so that the pods of a running object get one when its connection does.
_SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105  the name of a variable
_SECRET_KEY = "aws_secret_access_key"  # noqa: S105  the name of a field
_ADDRESS = ("_ENDPOINT", "_ENDPOINT_URL")


class Connection(Protocol):
    """What is read of an Airflow connection."""

    host: str | None
    schema: str | None
    port: int | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> Any: ...


class Credentials(NamedTuple):
    """Variables of a pod: ``secrets`` go by a Kubernetes Secret, ``settings`` as they are."""

    secrets: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Show no value: what is printed, be it by a traceback, ends in logs that many can read."""
        return f"Credentials({', '.join([*self.secrets, *self.settings])})"

    def __or__(self, other: Credentials) -> Credentials:
        return Credentials({**self.secrets, **other.secrets}, {**self.settings, **other.settings})

    @property
    def values(self) -> dict[str, str]:
        """All of them, for who uses them where the task runs."""
        return {**self.secrets, **self.settings}

    @property
    def references(self) -> dict[str, dict[str, Any]]:
        """What the pods are told of the secrets; ``own_name.fill_in`` has to follow."""
        found = {name: _reference(name) for name in self.secrets}
        if "AWS_SECRET_ACCESS_KEY" in found:
            found[_SESSION_TOKEN] = _reference(_SESSION_TOKEN, optional=True)
        return found

    def to_secret(self, owner: Mapping[str, Any]) -> dict[str, Any]:
        """The Secret that ``owner`` is to own."""
        metadata = owner["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _secret_name(metadata["name"]), "labels": dict(metadata.get("labels") or {})},
            "type": "Opaque",
            # Not `stringData`: a key that is left out of it stays in the Secret.
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in self.secrets.items()},
        }


def argument_of(variable: str) -> str:
    """Which of the two arguments gives this variable."""
    return HUB if variable.startswith("HF_") else AWS


def _reference(key: str, **more: bool) -> dict[str, Any]:
    return {"secretKeyRef": {"name": _secret_name(OWN_NAME), "key": key, **more}}


def _secret_name(owner: str) -> str:
    return f"{owner}-credentials"


# --- connections --------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """What becomes of one field of a connection; ``fix`` says what to do without it, if it has to be there."""

    variable: str
    value: Any
    name: str
    fix: str = ""


def read_connection(argument: str, conn_id: str, connection: Connection | None, problems: Problems) -> Credentials:
    """``argument`` says what the connection is for; no mistake repeats what a field holds."""
    if connection is None:
        fix = "create it in Airflow, with the token or the access key, or check how it is written"
        problems.add(argument, conn_id, "is no Airflow connection that this task can read", fix)
        return Credentials()
    fields = {HUB: _hub_fields, AWS: _aws_fields, ENDPOINT: _endpoint_fields}[argument]
    values: dict[str, str] = {}
    for field in fields(connection):
        text = str(field.value or "").strip()  # Who pastes a token pastes a line break along.
        if not text and field.fix:
            problems.add(argument, conn_id, f"is a connection without {field.name}", field.fix)
        elif not text.isascii() or not text.isprintable() or " " in text:
            rule = f"is a connection whose {field.name} has blanks, line breaks or letters that cannot be in it"
            problems.add(argument, conn_id, rule, f"enter its {field.name} once more")
        elif field.variable.endswith(_ADDRESS) and text and "://" not in text:
            problems.add(argument, conn_id, f"is a connection whose {field.name} is no URL", "begin it with https://")
        elif text:
            values[field.variable] = text
    secrets = {name: text for name, text in values.items() if is_secret(name, text)}
    return Credentials(secrets, {name: text for name, text in values.items() if name not in secrets})


def _hub_fields(connection: Connection) -> list[_Field]:
    return [
        _Field("HF_TOKEN", connection.password, "password", "enter the Hub's token there"),
        _Field("HF_ENDPOINT", _hub_address(connection), "host"),
    ]


def _endpoint_fields(connection: Connection) -> list[_Field]:
    return [_Field(ENDPOINT_TOKEN, connection.password, "password")]


def _hub_address(connection: Connection) -> str | None:
    """Read host, schema and port as Airflow's own HTTP connections are read."""
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return None
    port = f":{connection.port}" if connection.port else ""
    return host + port if "://" in host else f"{connection.schema or 'https'}://{host}{port}"


def _aws_fields(connection: Connection) -> list[_Field]:
    """Keys may also stand in ``extra``, as Airflow's own hooks for AWS take them."""
    found = connection.extra_dejson
    extra = found if isinstance(found, Mapping) else {}
    key, secret = connection.login or extra.get("aws_access_key_id"), connection.password or extra.get(_SECRET_KEY)
    role = "or, if the pods have a role, leave this out and name their `service_account_name` in `job_options`"
    return [
        _Field("AWS_ACCESS_KEY_ID", key, "login", f"enter the id of the access key there, {role}"),
        _Field("AWS_SECRET_ACCESS_KEY", secret, "password", f"enter the secret access key there, {role}"),
        _Field(_SESSION_TOKEN, extra.get("aws_session_token"), "extra.aws_session_token"),
        _Field("AWS_DEFAULT_REGION", extra.get("region_name"), "extra.region_name"),
        _Field("AWS_ENDPOINT_URL", extra.get("endpoint_url"), "extra.endpoint_url"),
    ]
