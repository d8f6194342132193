"""How a webhook of KServe says no: its checks end at the first mistake."""

from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.errors import ApiError, forbidden


class DenialError(Exception):
    """What is wrong, in the webhook's words."""


def denied_by(webhook: str, denial: DenialError) -> ApiError:
    return forbidden(f'admission webhook "{webhook}" denied the request: {denial}')
