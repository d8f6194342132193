"""The fields in common use of the built-in kinds whose objects are stored without a look at their types."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.run_status_struct import CONDITIONS
from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

_TEXTS = ListOf("string")
_QUANTITIES = MapOf("string")
_REFERENCE = Struct(
    "ObjectReference", fields_of({"string": "apiVersion kind namespace name uid resourceVersion fieldPath"})
)
_SELECTOR = Struct(
    "LabelSelector",
    {
        "matchLabels": MapOf("string"),
        "matchExpressions": ListOf(
            Struct("LabelSelectorRequirement", {**fields_of({"string": "key operator"}), "values": _TEXTS})
        ),
    },
)

NAMESPACE = Struct(
    "Namespace",
    {
        "spec": Struct("NamespaceSpec", {"finalizers": _TEXTS}),
        "status": Struct("NamespaceStatus", {"phase": "string", "conditions": CONDITIONS}),
    },
)

_SERVICE_PORT = Struct(
    "ServicePort", fields_of({"string": "name protocol appProtocol", "int32": "port nodePort", ANY: "targetPort"})
)
SERVICE = Struct(
    "Service",
    {
        "spec": Struct(
            "ServiceSpec",
            {
                "ports": ListOf(_SERVICE_PORT),
                "selector": MapOf("string"),
                **fields_of(
                    {
                        "string": "type clusterIP externalName sessionAffinity ipFamilyPolicy "
                        "internalTrafficPolicy externalTrafficPolicy",
                        _TEXTS: "clusterIPs externalIPs ipFamilies",
                        "bool": "publishNotReadyAddresses",
                    }
                ),
            },
        ),
        "status": Struct("ServiceStatus", {"loadBalancer": MapOf(ANY), "conditions": CONDITIONS}),
    },
)

_CLAIM_SPEC = Struct(
    "PersistentVolumeClaimSpec",
    {
        "accessModes": _TEXTS,
        "resources": Struct("VolumeResourceRequirements", {"limits": _QUANTITIES, "requests": _QUANTITIES}),
        "selector": _SELECTOR,
        **fields_of({"string": "storageClassName volumeMode volumeName volumeAttributesClassName", ANY: "dataSource"}),
    },
)
_CLAIM_STATUS = Struct(
    "PersistentVolumeClaimStatus",
    {"phase": "string", "accessModes": _TEXTS, "capacity": _QUANTITIES, "conditions": CONDITIONS},
)
PERSISTENT_VOLUME_CLAIM = Struct("PersistentVolumeClaim", {"spec": _CLAIM_SPEC, "status": _CLAIM_STATUS})
PERSISTENT_VOLUME = Struct(
    "PersistentVolume",
    {
        "spec": Struct(
            "PersistentVolumeSpec",
            {
                "capacity": _QUANTITIES,
                "accessModes": _TEXTS,
                "claimRef": _REFERENCE,
                "mountOptions": _TEXTS,
                **fields_of(
                    {
                        "string": "persistentVolumeReclaimPolicy storageClassName volumeMode",
                        ANY: "hostPath local nfs csi nodeAffinity",
                    }
                ),
            },
        ),
        "status": Struct("PersistentVolumeStatus", fields_of({"string": "phase reason message"})),
    },
)

_TAINT = Struct("Taint", fields_of({"string": "key value effect timeAdded"}))
_NODE_INFO = Struct(
    "NodeSystemInfo",
    fields_of(
        {
            "string": "machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion "
            "kubeProxyVersion operatingSystem architecture"
        }
    ),
)
NODE = Struct(
    "Node",
    {
        "spec": Struct(
            "NodeSpec",
            {
                **fields_of({"string": "podCIDR providerID", _TEXTS: "podCIDRs", "bool": "unschedulable"}),
                "taints": ListOf(_TAINT),
            },
        ),
        "status": Struct(
            "NodeStatus",
            {
                "capacity": _QUANTITIES,
                "allocatable": _QUANTITIES,
                "conditions": CONDITIONS,
                "addresses": ListOf(Struct("NodeAddress", fields_of({"string": "type address"}))),
                "nodeInfo": _NODE_INFO,
                "phase": "string",
                **fields_of({ANY: "daemonEndpoints images"}),
            },
        ),
    },
)

CONTROLLER_REVISION = Struct("ControllerRevision", fields_of({"int64": "revision", ANY: "data"}))
ROLE = Struct(
    "Role",
    {
        "rules": ListOf(
            Struct("PolicyRule", fields_of({_TEXTS: "verbs apiGroups resources resourceNames nonResourceURLs"}))
        )
    },
)
ROLE_BINDING = Struct(
    "RoleBinding",
    {
        "subjects": ListOf(Struct("Subject", fields_of({"string": "kind apiGroup name namespace"}))),
        "roleRef": Struct("RoleRef", fields_of({"string": "apiGroup kind name"})),
    },
)
SERVICE_ACCOUNT = Struct(
    "ServiceAccount",
    {
        "secrets": ListOf(_REFERENCE),
        "imagePullSecrets": ListOf(Struct("LocalObjectReference", {"name": "string"})),
        "automountServiceAccountToken": "bool",
    },
)
EVENT = Struct(
    "Event",
    {
        "involvedObject": _REFERENCE,
        "related": _REFERENCE,
        "source": Struct("EventSource", fields_of({"string": "component host"})),
        "series": Struct("EventSeries", {"count": "int32", "lastObservedTime": "string"}),
        **fields_of(
            {
                "string": "type reason message action eventTime firstTimestamp lastTimestamp reportingComponent "
                "reportingInstance",
                "int32": "count",
            }
        ),
    },
)

_NAMES = Struct(
    "CustomResourceDefinitionNames",
    {**fields_of({"string": "plural singular kind listKind"}), **fields_of({_TEXTS: "shortNames categories"})},
)
_COLUMN = Struct(
    "CustomResourceColumnDefinition",
    fields_of({"string": "name type format description jsonPath", "int32": "priority"}),
)
_DEFINED_VERSION = Struct(
    "CustomResourceDefinitionVersion",
    {
        **fields_of({"string": "name deprecationWarning", "bool": "served storage deprecated"}),
        "schema": Struct("CustomResourceValidation", {"openAPIV3Schema": MapOf(ANY)}),
        "subresources": Struct("CustomResourceSubresources", fields_of({MapOf(ANY): "status scale"})),
        "additionalPrinterColumns": ListOf(_COLUMN),
        "selectableFields": ListOf(Struct("SelectableField", {"jsonPath": "string"})),
    },
)
CUSTOM_RESOURCE_DEFINITION = Struct(
    "CustomResourceDefinition",
    {
        "spec": Struct(
            "CustomResourceDefinitionSpec",
            {
                "group": "string",
                "names": _NAMES,
                "scope": "string",
                "versions": ListOf(_DEFINED_VERSION),
                "conversion": Struct("CustomResourceConversion", {"strategy": "string", "webhook": MapOf(ANY)}),
                "preserveUnknownFields": "bool",
            },
        ),
        "status": Struct(
            "CustomResourceDefinitionStatus",
            {"conditions": CONDITIONS, "acceptedNames": _NAMES, "storedVersions": _TEXTS},
        ),
    },
)
