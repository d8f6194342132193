"""What a pod sees in place of the host's files: its own ``/etc/hosts`` and the folder of its service account.

The token in there is random and opens nothing: a pod here may not act on the control plane. What clients need is the
namespace and the authority's certificate.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.kubelet.environment import Lookup, address_of
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.runtime.private_view import HOSTS, SERVICE_ACCOUNT


class PodView:
    def __init__(self, pod: dict[str, Any], folder: PodFolder, authority: bytes, lookup: Lookup) -> None:
        self._pod = pod
        self._hosts = folder.path / "hosts"
        self._account = folder.path / "serviceaccount"
        self._authority = authority
        self._lookup = lookup

    def binds(self, hosts: Mapping[str, str]) -> list[list[str]]:
        """Make the files; pairs of a file or folder and the path at which the containers are to see it."""
        self._hosts.parent.mkdir(parents=True, exist_ok=True)
        self._hosts.touch()
        self.update_hosts(hosts)
        binds = [[str(self._hosts), HOSTS]] if Path(HOSTS).exists() else []
        if mounts_account(self._pod["spec"], self._lookup):
            self._write_account()
            binds.append([str(self._account), SERVICE_ACCOUNT])
        return binds

    def update_hosts(self, hosts: Mapping[str, str]) -> None:
        """Into the same file, as running containers see that one; nothing before the first start."""
        if self._hosts.exists():
            with self._hosts.open("r+b") as file:
                file.write(hosts_text(_text(Path(HOSTS)), self._pod, hosts).encode())
                file.truncate()

    def _write_account(self) -> None:
        if self._account.exists():
            return
        self._account.mkdir(mode=0o700)
        (self._account / "namespace").write_text(self._pod["metadata"]["namespace"])
        (self._account / "ca.crt").write_bytes(self._authority)
        token = self._account / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32))


def mounts_account(spec: Mapping[str, Any], lookup: Lookup) -> bool:
    """The pod's word counts before that of its service account."""
    if "automountServiceAccountToken" in spec:
        return bool(spec["automountServiceAccountToken"])
    account = lookup("ServiceAccount", spec.get("serviceAccountName") or "default")
    return bool((account or {}).get("automountServiceAccountToken", True))


def hosts_text(host: str, pod: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    """The host's own lines, then the pod's name, its aliases, and the Services'."""
    lines = [line for line in host.splitlines() if line.strip()]
    lines.append(f"{address_of(pod)}\t{pod['metadata']['name']}")
    aliases = pod["spec"].get("hostAliases") or ()
    lines += [f"{alias['ip']}\t{' '.join(alias.get('hostnames') or ())}" for alias in aliases]
    lines += [f"{address}\t{name}" for name, address in sorted(hosts.items())]
    return "\n".join(lines) + "\n"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
