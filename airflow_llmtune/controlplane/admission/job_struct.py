"""The fields of ``batch/v1`` Job down to its containers, for Katib's strict check of a trial template and for typed
reading of Jobs and Pods.

What nobody mistypes in a trial (affinity, volume sources, …) is taken as it is.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.probe_struct import LIFECYCLE, PROBE
from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

_META = Struct(
    "ObjectMeta",
    {
        **fields_of({"string": "name generateName namespace uid resourceVersion selfLink", "int64": "generation"}),
        "labels": MapOf("string"),
        "annotations": MapOf("string"),
        "finalizers": ListOf("string"),
        "ownerReferences": ANY,
        "managedFields": ANY,
        "creationTimestamp": ANY,
        "deletionTimestamp": ANY,
        "deletionGracePeriodSeconds": "int64",
    },
)

_ENV = ListOf(Struct("EnvVar", {"name": "string", "value": "string", "valueFrom": ANY}))

_MOUNTS = ListOf(
    Struct(
        "VolumeMount",
        fields_of(
            {"string": "name mountPath subPath subPathExpr mountPropagation recursiveReadOnly", "bool": "readOnly"}
        ),
    )
)

_PORTS = ListOf(
    Struct("ContainerPort", fields_of({"string": "name protocol hostIP", "int32": "containerPort hostPort"}))
)

_CONTAINERS = ListOf(
    Struct(
        "Container",
        {
            **fields_of(
                {
                    "string": "name image workingDir imagePullPolicy terminationMessagePath "
                    "terminationMessagePolicy restartPolicy",
                    "bool": "stdin stdinOnce tty",
                    ANY: "envFrom securityContext volumeDevices resizePolicy restartPolicyRules",
                }
            ),
            **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe"), PROBE),
            "lifecycle": LIFECYCLE,
            "command": ListOf("string"),
            "args": ListOf("string"),
            "env": _ENV,
            "ports": _PORTS,
            "volumeMounts": _MOUNTS,
            # Quantities may be numbers or texts.
            "resources": Struct("ResourceRequirements", {"limits": MapOf(ANY), "requests": MapOf(ANY), "claims": ANY}),
        },
    )
)

# What the scheduler here reads of it; the rest is ignored.
_NODE_TERM = ListOf(
    Struct("NodeSelectorRequirement", {**fields_of({"string": "key operator"}), "values": ListOf("string")})
)
_NODE_TERMS = ListOf(Struct("NodeSelectorTerm", {"matchExpressions": _NODE_TERM, "matchFields": _NODE_TERM}))
_NODE_AFFINITY = Struct(
    "NodeAffinity",
    {
        "requiredDuringSchedulingIgnoredDuringExecution": Struct("NodeSelector", {"nodeSelectorTerms": _NODE_TERMS}),
        "preferredDuringSchedulingIgnoredDuringExecution": ANY,
    },
)
_AFFINITY = Struct("Affinity", {"nodeAffinity": _NODE_AFFINITY, "podAffinity": ANY, "podAntiAffinity": ANY})

POD_SPEC = Struct(
    "PodSpec",
    {
        **fields_of(
            {
                "string": "restartPolicy dnsPolicy serviceAccountName serviceAccount nodeName hostname subdomain "
                "schedulerName priorityClassName preemptionPolicy runtimeClassName hostnameOverride",
                "bool": "automountServiceAccountToken hostNetwork hostPID hostIPC shareProcessNamespace "
                "enableServiceLinks setHostnameAsFQDN hostUsers",
                "int64": "terminationGracePeriodSeconds activeDeadlineSeconds",
                "int32": "priority",
                ANY: "ephemeralContainers securityContext tolerations hostAliases dnsConfig "
                "readinessGates overhead topologySpreadConstraints os schedulingGates resourceClaims resources "
                "imagePullSecrets",
            }
        ),
        "nodeSelector": MapOf("string"),
        "affinity": _AFFINITY,
        "containers": _CONTAINERS,
        "initContainers": _CONTAINERS,
        "volumes": ListOf(MapOf(ANY)),
    },
)

_EXIT_CODES = Struct(
    "PodFailurePolicyOnExitCodesRequirement",
    {**fields_of({"string": "containerName operator"}), "values": ListOf("int32")},
)
_POD_CONDITION = Struct("PodFailurePolicyOnPodConditionsPattern", fields_of({"string": "type status"}))
_FAILURE_RULE = Struct(
    "PodFailurePolicyRule",
    {"action": "string", "onExitCodes": _EXIT_CODES, "onPodConditions": ListOf(_POD_CONDITION)},
)
_SUCCESS_RULE = Struct("SuccessPolicyRule", {"succeededIndexes": "string", "succeededCount": "int32"})

JOB_SPEC = Struct(
    "JobSpec",
    {
        **fields_of(
            {
                "int32": "parallelism completions backoffLimit backoffLimitPerIndex maxFailedIndexes "
                "ttlSecondsAfterFinished",
                "int64": "activeDeadlineSeconds",
                "bool": "manualSelector suspend",
                "string": "completionMode podReplacementPolicy managedBy",
                ANY: "selector",
            }
        ),
        "podFailurePolicy": Struct("PodFailurePolicy", {"rules": ListOf(_FAILURE_RULE)}),
        "successPolicy": Struct("SuccessPolicy", {"rules": ListOf(_SUCCESS_RULE)}),
        "template": Struct("PodTemplateSpec", {"metadata": _META, "spec": POD_SPEC}),
    },
)

JOB = Struct("Job", {"apiVersion": "string", "kind": "string", "metadata": _META, "spec": JOB_SPEC, "status": ANY})
