"""Search algorithms: from an experiment's space and its trials so far to the next parameter sets.

Each is stateless: whatever it knows it rebuilds from the arguments at every call, so a restart of the
control plane loses nothing. Nothing here knows Kubernetes objects beyond the ``spec.parameters`` list;
nothing does I/O.
"""
