"""What clients know a server by: its token, its certificate and its ports. Kept, so that a kubeconfig stays valid."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from airflow_llmtune.controlplane.certificates import ServerCertificate, is_good_for, issue
from airflow_llmtune.controlplane.kubeconfig import write_private
from airflow_llmtune.controlplane.state.errors import StateError

FILE = "identity.json"


@dataclass(frozen=True)
class Identity:
    token: str
    certificate: ServerCertificate
    port: int = 0
    """The one that was served last; 0 before that."""
    gateway_port: int = 0


def new_identity(host: str) -> Identity:
    return Identity(secrets.token_urlsafe(32), issue(host))


def kept_identity(folder: Path, host: str, now: datetime) -> Identity | None:
    """The one of the last run, if any, with a new certificate if the old one is near its end or not for this host."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = _decode(path.read_text())
        if is_good_for(found.certificate, host, now):
            return found
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"cannot read {path}: {error!r}; remove it to get a new token and certificate (kubeconfigs written before "
            "will no longer work; no object is lost)"
        ) from error
    return replace(found, certificate=issue(host))


def keep_identity(folder: Path, identity: Identity) -> None:
    """Written with mode 0600, whole or not at all."""
    certificate = {field: pem.decode() for field, pem in asdict(identity.certificate).items()}
    ports = {"port": identity.port, "gatewayPort": identity.gateway_port}
    fields = {"token": identity.token, **ports, "certificate": certificate}
    write_private(folder / FILE, json.dumps(fields, indent=2))


def _decode(text: str) -> Identity:
    fields = json.loads(text)
    certificate = {field: pem.encode() for field, pem in fields["certificate"].items()}
    # A directory of before there was a gateway has no port of one.
    ports = (int(fields["port"]), int(fields.get("gatewayPort", 0)))
    return Identity(str(fields["token"]), ServerCertificate(**certificate), *ports)
