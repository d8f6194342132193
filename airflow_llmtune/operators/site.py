"""Which Airflow an object belongs to: namespaces are shared, and run ids are the same wherever a DAG is deployed."""

from __future__ import annotations

from airflow.sdk.configuration import conf

from airflow_llmtune.resources.meta import SITE_ANNOTATION

__all__ = ["site_annotations", "site_name"]


def site_name() -> str | None:
    """Return what tells this Airflow from any other; None where nobody has said so."""
    name = conf.get("llmtune", "site", fallback=None) or conf.get("api", "base_url", fallback=None)
    return None if name is None else str(name).rstrip("/")


def site_annotations() -> dict[str, str]:
    name = site_name()
    return {} if name is None else {SITE_ANNOTATION: name}
