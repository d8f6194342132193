"""What a DAG author imports. Constructors do no I/O and load no Kubernetes client; all checks run after rendering."""
