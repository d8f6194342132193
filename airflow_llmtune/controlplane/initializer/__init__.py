"""KServe's storage initializer: what fetches models before their server starts.

``image`` runs ``program`` in a process of its own, by the trainer's image where the clients of the stores are missing
here: the control plane itself needs none of them.
"""
