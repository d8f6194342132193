"""The runtime: a process of its own that is the parent of all container processes, as containerd is on a node.

It outlives the control plane for a while, so that one that is started again finds its containers and what became of
those that ended meanwhile. Each container has a shim, a fork of the runtime: it starts the first process, writes what
the container prints to its log, keeps it within its bounds and ends all that it left behind.

All of this imports nothing but the standard library and is run by a bare interpreter: it starts in a few
milliseconds and each shim costs little memory. ``protocol`` is what the kubelet and the runtime say to each other.
"""

from __future__ import annotations
