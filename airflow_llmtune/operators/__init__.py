"""What a DAG author imports. Constructors do no I/O and load no Kubernetes client; all checks run after rendering.

A DAG file is parsed again and again: what only a task needs is imported in the method that needs it.
"""
