"""Katib's metrics collectors: from what a training leaves behind to metric logs, and the sidecars that do it in a pod.

The sidecars are images that the kubelet serves inside the control plane. What they read may be large: it is read in
pieces, in threads. How a pod gets its sidecar is the pod webhook's business.
"""
