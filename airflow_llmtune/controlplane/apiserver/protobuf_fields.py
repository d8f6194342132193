"""Numbers and names of the fields of Kubernetes' protobuf messages that kubectl sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Shape = Literal["string", "strings", "bool", "int", "int or string", "string map", "bytes map", "message", "messages"]


@dataclass(frozen=True)
class Field:
    name: str
    shape: Shape = "string"
    fields: Mapping[int, Field] | None = None


TYPE_META = {1: Field("apiVersion"), 2: Field("kind")}

_REFERENCE = {1: Field("kind"), 2: Field("namespace"), 3: Field("name"), 4: Field("uid"), 5: Field("apiVersion")}
# What the server owns (uid, times, generation) is left out: a create ignores it anyway.
_METADATA = {
    1: Field("name"),
    2: Field("generateName"),
    3: Field("namespace"),
    11: Field("labels", "string map"),
    12: Field("annotations", "string map"),
    14: Field("finalizers", "strings"),
}
_OBJECT = {1: Field("metadata", "message", _METADATA)}

_PORT = {1: Field("name"), 2: Field("hostPort", "int"), 3: Field("containerPort", "int"), 4: Field("protocol")}
_CONTAINER = {
    1: Field("name"),
    2: Field("image"),
    3: Field("command", "strings"),
    4: Field("args", "strings"),
    5: Field("workingDir"),
    6: Field("ports", "messages", _PORT),
    7: Field("env", "messages", {1: Field("name"), 2: Field("value")}),
    13: Field("terminationMessagePath"),
    14: Field("imagePullPolicy"),
    20: Field("terminationMessagePolicy"),
}
_POD_SPEC = {
    2: Field("containers", "messages", _CONTAINER),
    3: Field("restartPolicy"),
    6: Field("dnsPolicy"),
    7: Field("nodeSelector", "string map"),
    8: Field("serviceAccountName"),
    10: Field("nodeName"),
    19: Field("schedulerName"),
    20: Field("initContainers", "messages", _CONTAINER),
}
_POD_TEMPLATE = {1: Field("metadata", "message", _METADATA), 2: Field("spec", "message", _POD_SPEC)}
_SELECTOR = {1: Field("matchLabels", "string map")}
_JOB_SPEC = {
    1: Field("parallelism", "int"),
    2: Field("completions", "int"),
    3: Field("activeDeadlineSeconds", "int"),
    4: Field("selector", "message", _SELECTOR),
    6: Field("template", "message", _POD_TEMPLATE),
    7: Field("backoffLimit", "int"),
    8: Field("ttlSecondsAfterFinished", "int"),
    9: Field("completionMode"),
    10: Field("suspend", "bool"),
}
_DEPLOYMENT_SPEC = {
    1: Field("replicas", "int"),
    2: Field("selector", "message", _SELECTOR),
    3: Field("template", "message", _POD_TEMPLATE),
}
_SERVICE_PORT = {
    1: Field("name"),
    2: Field("protocol"),
    3: Field("port", "int"),
    4: Field("targetPort", "int or string"),
}
_SERVICE_SPEC = {
    1: Field("ports", "messages", _SERVICE_PORT),
    2: Field("selector", "string map"),
    3: Field("clusterIP"),
    4: Field("type"),
}
_RULE = {
    1: Field("verbs", "strings"),
    2: Field("apiGroups", "strings"),
    3: Field("resources", "strings"),
    4: Field("resourceNames", "strings"),
}
_SUBJECT = {1: Field("kind"), 2: Field("apiGroup"), 3: Field("name"), 4: Field("namespace")}
_ACCESS = {
    1: Field("namespace"),
    2: Field("verb"),
    3: Field("group"),
    4: Field("version"),
    5: Field("resource"),
    6: Field("subresource"),
    7: Field("name"),
}
_ACCESS_SPEC = {
    1: Field("resourceAttributes", "message", _ACCESS),
    2: Field("nonResourceAttributes", "message", {1: Field("path"), 2: Field("verb")}),
}


def _with_spec(fields: Mapping[int, Field]) -> Mapping[int, Field]:
    return {**_OBJECT, 2: Field("spec", "message", fields)}


KINDS: Mapping[tuple[str, str], Mapping[int, Field]] = {
    ("v1", "Namespace"): _OBJECT,
    ("v1", "ConfigMap"): {
        **_OBJECT,
        2: Field("data", "string map"),
        3: Field("binaryData", "bytes map"),
        4: Field("immutable", "bool"),
    },
    ("v1", "Secret"): {
        **_OBJECT,
        2: Field("data", "bytes map"),
        3: Field("type"),
        4: Field("stringData", "string map"),
        5: Field("immutable", "bool"),
    },
    ("v1", "ServiceAccount"): {
        **_OBJECT,
        2: Field("secrets", "messages", _REFERENCE),
        3: Field("imagePullSecrets", "messages", {1: Field("name")}),
        4: Field("automountServiceAccountToken", "bool"),
    },
    ("v1", "Service"): _with_spec(_SERVICE_SPEC),
    ("batch/v1", "Job"): _with_spec(_JOB_SPEC),
    ("apps/v1", "Deployment"): _with_spec(_DEPLOYMENT_SPEC),
    ("rbac.authorization.k8s.io/v1", "Role"): {**_OBJECT, 2: Field("rules", "messages", _RULE)},
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): {
        **_OBJECT,
        2: Field("subjects", "messages", _SUBJECT),
        3: Field("roleRef", "message", {1: Field("apiGroup"), 2: Field("kind"), 3: Field("name")}),
    },
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): _with_spec(_ACCESS_SPEC),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): _with_spec({1: Field("namespace")}),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): _OBJECT,
}
