"""The kinds this API server serves without being told; CustomResourceDefinitions add others, see ``catalog``."""

from __future__ import annotations

from dataclasses import dataclass, field

_GROUPS_WITHOUT_DEFINITIONS = frozenset({"", "apps", "batch", "rbac.authorization.k8s.io", "apiextensions.k8s.io"})


@dataclass(frozen=True)
class Kind:
    """One resource type; ``name`` is the manifest's ``kind``, ``plural`` its word in URLs.

    Group and plural make it what it is: all versions of a resource are equal and share one table of the store.
    """

    group: str
    version: str = field(compare=False)
    name: str = field(compare=False)
    plural: str
    singular: str = field(compare=False)
    namespaced: bool = field(default=True, compare=False)
    short_names: tuple[str, ...] = field(default=(), compare=False)
    categories: tuple[str, ...] = field(default=(), compare=False)
    has_status: bool = field(default=True, compare=False)
    converts: bool = field(default=False, compare=False)
    """Whether objects may be stored in another version than this one, so that each is told in this one when read."""
    selectable: tuple[str, ...] = field(default=(), compare=False)
    """Fields of its own that a definition offers to field selectors."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name error messages use: ``pods``, ``jobs.batch``, ``experiments.kubeflow.org``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_custom(self) -> bool:
        """Whether a real cluster serves this from a CustomResourceDefinition, whose rules differ a bit."""
        return self.group not in _GROUPS_WITHOUT_DEFINITIONS

    def __str__(self) -> str:
        return f"{self.name}.{self.group}" if self.group else self.name


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", "namespace", namespaced=False, short_names=("ns",))
POD = Kind("", "v1", "Pod", "pods", "pod", short_names=("po",), categories=("all",))
SERVICE = Kind("", "v1", "Service", "services", "service", short_names=("svc",), categories=("all",))
SECRET = Kind("", "v1", "Secret", "secrets", "secret", has_status=False)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", "configmap", short_names=("cm",), has_status=False)
EVENT = Kind("", "v1", "Event", "events", "event", short_names=("ev",), has_status=False)
SERVICE_ACCOUNT = Kind(
    "", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", short_names=("sa",), has_status=False
)
PERSISTENT_VOLUME_CLAIM = Kind(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", short_names=("pvc",)
)
PERSISTENT_VOLUME = Kind(
    "", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume", namespaced=False, short_names=("pv",)
)
NODE = Kind("", "v1", "Node", "nodes", "node", namespaced=False, short_names=("no",))
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", "deployment", short_names=("deploy",), categories=("all",))
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", "replicaset", short_names=("rs",), categories=("all",))
CONTROLLER_REVISION = Kind(
    "apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision", has_status=False
)
JOB = Kind("batch", "v1", "Job", "jobs", "job", categories=("all",))
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles", "role", has_status=False)
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding", has_status=False)
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "customresourcedefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    categories=("api-extensions",),
)

_KATIB = ("all", "kubeflow", "katib")
EXPERIMENT = Kind("kubeflow.org", "v1beta1", "Experiment", "experiments", "experiment", categories=_KATIB)
SUGGESTION = Kind("kubeflow.org", "v1beta1", "Suggestion", "suggestions", "suggestion", categories=_KATIB)
TRIAL = Kind("kubeflow.org", "v1beta1", "Trial", "trials", "trial", categories=_KATIB)
PYTORCH_JOB = Kind("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs", "pytorchjob")

_TRAINER = ("trainer.kubeflow.org", "v1alpha1")
TRAIN_JOB = Kind(*_TRAINER, "TrainJob", "trainjobs", "trainjob")
TRAINING_RUNTIME = Kind(*_TRAINER, "TrainingRuntime", "trainingruntimes", "trainingruntime", has_status=False)
CLUSTER_TRAINING_RUNTIME = Kind(
    *_TRAINER,
    "ClusterTrainingRuntime",
    "clustertrainingruntimes",
    "clustertrainingruntime",
    namespaced=False,
    has_status=False,
)
JOB_SET = Kind("jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets", "jobset", short_names=("jbset",))
HTTP_ROUTE = Kind(
    "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", "httproute", categories=("gateway-api",)
)

_SERVING = "serving.kserve.io"
INFERENCE_SERVICE = Kind(
    _SERVING, "v1beta1", "InferenceService", "inferenceservices", "inferenceservice", short_names=("isvc",)
)
SERVING_RUNTIME = Kind(_SERVING, "v1alpha1", "ServingRuntime", "servingruntimes", "servingruntime", has_status=False)
CLUSTER_SERVING_RUNTIME = Kind(
    _SERVING,
    "v1alpha1",
    "ClusterServingRuntime",
    "clusterservingruntimes",
    "clusterservingruntime",
    namespaced=False,
    has_status=False,
)
LLM_INFERENCE_SERVICE = Kind(
    _SERVING,
    "v1alpha2",
    "LLMInferenceService",
    "llminferenceservices",
    "llminferenceservice",
    short_names=("llmisvc",),
)

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    POD,
    SERVICE,
    SECRET,
    CONFIG_MAP,
    EVENT,
    SERVICE_ACCOUNT,
    PERSISTENT_VOLUME_CLAIM,
    PERSISTENT_VOLUME,
    NODE,
    DEPLOYMENT,
    REPLICA_SET,
    CONTROLLER_REVISION,
    JOB,
    ROLE,
    ROLE_BINDING,
    CUSTOM_RESOURCE_DEFINITION,
    EXPERIMENT,
    SUGGESTION,
    TRIAL,
    PYTORCH_JOB,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    CLUSTER_TRAINING_RUNTIME,
    JOB_SET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    SERVING_RUNTIME,
    CLUSTER_SERVING_RUNTIME,
    LLM_INFERENCE_SERVICE,
)

_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}
_BY_PLURAL = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}


def find_kind(api_version: str, kind_name: str) -> Kind | None:
    """Of the kinds here only; ``KindCatalog`` also knows those of one control plane's definitions."""
    return _BY_NAME.get((api_version, kind_name))


def find_resource(group: str, version: str, plural: str) -> Kind | None:
    """The kind behind a URL."""
    return _BY_PLURAL.get((group, version, plural))
