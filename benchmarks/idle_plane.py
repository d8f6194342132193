"""
A control plane on which nothing happens by itself, and that tells how often it was asked.

It has no controllers for what waits: an Experiment stays as it was written until a benchmark writes that it has ended.
Each line on its stdin is answered by one line of JSON, its requests so far by verb and resource; it ends with stdin.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from pathlib import Path

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.controllers.definition import DefinitionController
from airflow_llmtune.controlplane.controllers.namespace import NamespaceController
from airflow_llmtune.controlplane.controllers.runtime import Manager
from airflow_llmtune.controlplane.db_manager import DBManager


class IdlePlane(ControlPlane):
    def _manager(self, db_manager: DBManager, state_dir: Path) -> Manager:  # noqa: ARG002  its base's arguments
        return Manager(self.registry, [NamespaceController(self.registry), DefinitionController(self.registry)])


def allow_connections() -> None:
    """As many as this process may have at all."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--namespace", action="append", required=True)
    options = parser.parse_args()
    allow_connections()
    with IdlePlane(state_dir=options.state_dir, namespaces=options.namespace) as plane:
        plane.write_kubeconfig(options.kubeconfig)
        for _ in sys.stdin:
            asked = {f"{verb} {kind.partition('.')[0]}": count for (verb, kind), count in plane.requests.items()}
            print(json.dumps(asked), flush=True)


if __name__ == "__main__":
    main()
