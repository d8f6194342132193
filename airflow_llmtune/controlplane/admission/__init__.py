"""Admission: what happens to objects on their way into the store.

Katib's Experiment and pod webhooks with their own texts, the API server's defaults for Pods and Jobs, and the
training operator's rules for PyTorchJobs. It reads other objects (owners, ConfigMaps) and writes none.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.katib import KatibAdmission

__all__ = ["KatibAdmission"]
