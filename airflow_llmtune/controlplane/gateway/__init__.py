"""The gateway: models answer through it, at the plane's ``gateway_url``.

An HTTP proxy that follows HTTPRoutes, Services and pods as an implementation of Gateway API does, with one listener on
loopback that asks for the plane's token. It makes no routes: KServe's controllers and people do.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.gateway.proxy import Gateway

__all__ = ["Gateway"]
