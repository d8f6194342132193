"""The kubelet: runs pods as groups of local processes and reports their state as a node's agent does.

It gives each container its own working folder, a clean environment and a log file, and knows volumes, restart
policies, grace periods, deadlines and termination messages. It does not isolate: containers see the host's file
system, network and processes. There are no mounts either: where a text names a mount path, the local folder is put
in its place. Resource requests and limits are not enforced, probes are not run.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.kubelet.agent import Kubelet

__all__ = ["Kubelet"]
