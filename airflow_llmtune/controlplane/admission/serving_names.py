"""KServe's labels, annotations and names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STANDARD = "Standard"
KNATIVE = "Knative"
LEGACY_MODES = {"RawDeployment": STANDARD, "Serverless": KNATIVE}
DEFAULT_MODE = KNATIVE
"""Of KServe's own configuration and chart."""

MODE = "serving.kserve.io/deploymentMode"
STOP = "serving.kserve.io/stop"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
DISABLE_AUTO_UPDATE = "serving.kserve.io/disable-auto-update"
SERVER_TYPE = "serving.kserve.io/server-type"
ROUTING_TAG = "serving.kserve.io/enable-tag-routing"
SECRET_NAME = "serving.kserve.io/storageSecretName"  # noqa: S105  the name of an annotation
STORAGE_READ_ONLY = "storage.kserve.io/readonly"
MODEL_FORMAT = "modelFormat"
SOURCE_URI = "internal.serving.kserve.io/storage-initializer-sourceuri"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
COMPONENT_LABEL = "component"
PREDICTOR = "predictor"
REVISION_LABEL = "serving.knative.dev/revision"

MAIN_CONTAINER = "kserve-container"
TRANSFORMER_CONTAINER = "transformer-container"
INITIALIZER = "storage-initializer"
MODEL_FOLDER = "/mnt/models"
STORAGE_URI_VARIABLE = "STORAGE_URI"
MODEL_PORT = 8080

KEPT_TO_ITSELF = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    SOURCE_URI,
    "kubectl.kubernetes.io/last-applied-configuration",
    MODEL_FORMAT,
)
"""Annotations of a service that are not handed down to what it is made of."""


def predictor_name(service: str, variant: str | None = None) -> str:
    """Of the Deployment and the Service of a predictor, or of a canary."""
    return f"{service}-{variant}-predictor" if variant else f"{service}-predictor"


def app_label(name: str) -> str:
    return f"isvc.{name}"


def is_stopped(obj: Mapping[str, Any]) -> bool:
    return str((obj["metadata"].get("annotations") or {}).get(STOP, "")).lower() == "true"
