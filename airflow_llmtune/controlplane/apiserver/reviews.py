"""Questions that are created and answered but never stored: who am I, and may I.

Whoever has the token may do everything: Roles and RoleBindings are kept, and never enforced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import Kind

USER = "system:llmtune-admin"
GROUPS = ("system:masters", "system:authenticated")

_AUTHORIZATION = ("authorization.k8s.io", "v1")
ACCESS = Kind(
    *_AUTHORIZATION,
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    "selfsubjectaccessreview",
    namespaced=False,
    has_status=False,
)
RULES = Kind(
    *_AUTHORIZATION,
    "SelfSubjectRulesReview",
    "selfsubjectrulesreviews",
    "selfsubjectrulesreview",
    namespaced=False,
    has_status=False,
)
WHO_AM_I = Kind(
    "authentication.k8s.io",
    "v1",
    "SelfSubjectReview",
    "selfsubjectreviews",
    "selfsubjectreview",
    namespaced=False,
    has_status=False,
)
REVIEWS = (ACCESS, RULES, WHO_AM_I)

_BY_PATH = {f"apis/{kind.group}/{kind.version}/{kind.plural}": kind for kind in REVIEWS}


def find_review(path: str) -> Kind | None:
    return _BY_PATH.get(path)


def answer(kind: Kind, asked: Mapping[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = {"allowed": True, "reason": "the control plane enforces no roles"}
    if kind is RULES:
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
        status = {"resourceRules": [everything], "nonResourceRules": [paths], "incomplete": False}
    elif kind is WHO_AM_I:
        status = {"userInfo": {"username": USER, "groups": list(GROUPS)}}
    return {
        "kind": kind.name,
        "apiVersion": kind.api_version,
        "metadata": {"creationTimestamp": None},
        "spec": asked.get("spec") or {},
        "status": status,
    }
