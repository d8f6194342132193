"""What a storage initializer gets of the Secrets of its pod's ServiceAccount, as KServe gives it. Pure.

Secrets for Google, Azure and HDFS are passed over: the initializer here does not know these stores.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import SECRET_NAME
from airflow_llmtune.controlplane.apiserver.errors import not_found
from airflow_llmtune.controlplane.apiserver.kinds import SECRET, SERVICE_ACCOUNT, Kind

Object = dict[str, Any]
FindObject = Callable[[Kind, str, str], Object | None]

_KEY_ID, _KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_TOKEN = "HF_TOKEN"  # noqa: S105  the name of a variable
_ROLE = "eks.amazonaws.com/role-arn"
_PREFIX = "serving.kserve.io/"
_SETTINGS = (
    ("s3-verifyssl", "S3_VERIFY_SSL"),
    ("s3-useanoncredential", "awsAnonymousCredential"),
    ("s3-region", "AWS_DEFAULT_REGION"),
    ("s3-usevirtualbucket", "S3_USER_VIRTUAL_BUCKET"),
    ("s3-useaccelerate", "S3_USE_ACCELERATE"),
    ("s3-cabundle", "AWS_CA_BUNDLE"),
    ("s3-cabundle-configmap", "AWS_CA_BUNDLE_CONFIGMAP"),
)


def credentials(namespace: str, account_name: str, annotations: Mapping[str, str], find: FindObject) -> list[Object]:
    """Environment variables; raises ApiError for a Secret that is not there."""
    account = find(SERVICE_ACCOUNT, namespace, account_name or "default")
    if account is None:
        return []
    own = account["metadata"].get("annotations") or {}
    env = {one["name"]: one for one in (_settings(own, {}) if _ROLE in own else ())}
    names = [one["name"] for one in account.get("secrets") or ()]
    if SECRET_NAME in annotations:
        names = [annotations[SECRET_NAME]]
    for name in names:
        secret = find(SECRET, namespace, name)
        if secret is None:
            raise not_found(SECRET, name)
        env |= {one["name"]: one for one in _of_secret(secret)}
    return list(env.values())


def _of_secret(secret: Object) -> list[Object]:
    name, data = secret["metadata"]["name"], secret.get("data") or {}
    if _KEY in data:
        texts = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
        keys = [_reference(name, _KEY_ID), _reference(name, _KEY)]
        return [*keys, *_settings(secret["metadata"].get("annotations") or {}, texts)]
    return [_reference(name, _TOKEN)] if _TOKEN in data else []


def _reference(secret: str, key: str) -> Object:
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _settings(annotations: Mapping[str, str], data: Mapping[str, str]) -> list[Object]:
    """An annotation wins over a key of the Secret."""

    def value(annotation: str, key: str) -> str:
        return annotations.get(f"{_PREFIX}{annotation}", data.get(key, ""))

    found = []
    endpoint = value("s3-endpoint", "S3_ENDPOINT").strip()
    if endpoint:
        found += _endpoint(endpoint, value("s3-usehttps", "S3_USE_HTTPS"))
    found += [(key, value(annotation, key)) for annotation, key in _SETTINGS if value(annotation, key)]
    return [{"name": name, "value": text} for name, text in found]


def _endpoint(endpoint: str, asked: str) -> list[tuple[str, str]]:
    """With the scheme that it has, or that ``s3-usehttps`` asks for."""
    scheme, has_scheme, host = endpoint.partition("://")
    if not has_scheme:
        scheme, host = ("http" if asked == "0" else "https"), endpoint
    else:
        asked = "0" if scheme.lower() == "http" else "1"
    return [
        *([("S3_USE_HTTPS", asked)] if asked else []),
        ("S3_ENDPOINT", host),
        ("AWS_ENDPOINT_URL", endpoint if has_scheme else f"{scheme}://{host}"),
    ]
