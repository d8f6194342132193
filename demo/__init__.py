"""`make demo`: the whole road on one machine, on the embedded control plane and a real Airflow."""
