"""The link from a deployment task to what it deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["EndpointLink"]


class EndpointLink(BaseOperatorLink):
    """Leads to the model's URL once it is known."""

    name = "Model endpoint"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        return getattr(operator, "endpoint_url", None) or ""
