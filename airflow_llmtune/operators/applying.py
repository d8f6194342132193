"""Server-side apply as a task does it: what the API server refuses is told with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import ForeignObjectError, KubernetesApiError
from airflow_llmtune.operators.refusal import fail_on_bad_input
from airflow_llmtune.resources.meta import ResourceKind, path

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["apply", "differs"]

JSON = dict[str, Any]


async def apply(client: KubeflowClient, kind: ResourceKind, manifest: JSON, *, force: bool, dry_run: bool) -> JSON:
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    try:
        return await client.apply(kind, namespace, manifest, force=force, dry_run=dry_run)
    except KubernetesApiError as error:
        if error.code == 409 and error.causes:
            fields = "".join(f"\n  {cause}" for cause in error.causes)
            raise ForeignObjectError(
                f"{kind.kind} {name!r} in namespace {namespace!r} has fields that somebody else has set otherwise:"
                f"{fields}\nFix: set them there, leave them out here, or give force_conflicts=True"
            ) from error
        if error.code == 404:
            fix = f"install KServe, or create the namespace {namespace!r}"
            raise KubernetesApiError(f"{error}. Fix: {fix}", code=404, reason=error.reason) from error
        fail_on_bad_input(kind, name, error)
        raise


def differs(preview: JSON, current: JSON) -> bool:
    """Tell whether to apply it would change anything that anybody acts on."""
    parts = (("spec",), ("metadata", "labels"), ("metadata", "annotations"))
    return any((path(preview, *part) or {}) != (path(current, *part) or {}) for part in parts)
