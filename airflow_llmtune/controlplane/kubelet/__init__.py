"""The kubelet: runs pods as groups of local processes and reports their state as a node's agent does.

It gives each container its own working folder, a clean environment and a log file, and knows volumes, restart
policies, probes, hooks, grace periods, deadlines and termination messages. The processes are children of a runtime
(see ``runtime``) that outlives a control plane which is killed, so that the next one re-adopts them. Memory limits,
the size of logs and the number of processes are bounded, and GPUs are given to one pod each.

It does not isolate: containers see the host's file system, network and processes. Where the machine allows it each pod
sees an ``/etc/hosts`` and a service account's folder of its own; volumes are not mounted: where a text names a mount
path, the local folder is put in its place. CPU limits are not enforced. All pods share the host's network: those of
ReplicaSets have a loopback address each, which their programs must listen on.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.kubelet.agent import Kubelet

__all__ = ["OUTAGE_SECONDS", "Kubelet"]

OUTAGE_SECONDS = 120.0
"""How long the containers of a durable control plane run on when it is killed."""
