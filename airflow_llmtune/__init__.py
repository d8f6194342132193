"""Airflow provider that tunes, trains and deploys LLM fine-tunes on Kubeflow."""

__version__ = "0.1.0"
