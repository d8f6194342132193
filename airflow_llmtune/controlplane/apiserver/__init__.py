"""The Kubernetes API: kinds, object semantics (registry), HTTP, watch, discovery, tables, fault injection.

This layer knows what any API server knows about any object. It does not know what an Experiment means
(admission and controllers do) and starts no process (the kubelet does).
"""
