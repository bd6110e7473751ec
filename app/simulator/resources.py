"""The kinds that the simulator's API serves. A new kind is one entry here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)
_NAME: Mapping[str, tuple[str, ...]] = {"metadata.name": ("metadata", "name")}
_NAMESPACED = {**_NAME, "metadata.namespace": ("metadata", "namespace")}


@dataclass(frozen=True)
class Subresource:
    """A path below an object, with the kind that it takes or gives."""

    name: str
    verbs: tuple[str, ...]
    kind: str | None = None  # None: the object's own kind
    group: str | None = None
    version: str | None = None


STATUS = Subresource("status", ("get", "patch", "update"))
SCALE = Subresource(
    "scale", ("get", "patch", "update"), kind="Scale", group="autoscaling", version="v1"
)


@dataclass(frozen=True)
class Resource:
    """How one kind is named, addressed and stored.

    `fields` are the names of a field selector with their paths. `counts_generation`: its
    metadata.generation rises with each change of its spec. `virtual` kinds are answered, not kept.
    """

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boolean_fields: frozenset[str] = frozenset()
    counts_generation: bool = False
    virtual: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        return any(one.name == "status" for one in self.subresources)

    def selectable_fields(self) -> Mapping[str, tuple[str, ...]]:
        return {**(_NAMESPACED if self.namespaced else _NAME), **self.fields}


def _paths(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(name.split(".")) for name in names}


RESOURCES: tuple[Resource, ...] = (
    Resource(
        "", "v1", "nodes", "Node", "node",
        namespaced=False, short_names=("no",), subresources=(STATUS,),
        fields=_paths("spec.unschedulable"), boolean_fields=frozenset({"spec.unschedulable"}),
    ),
    Resource(
        "", "v1", "pods", "Pod", "pod",
        short_names=("po",), categories=("all",), counts_generation=True,
        subresources=(
            STATUS,
            Subresource("eviction", ("create",), kind="Eviction", group="policy", version="v1"),
            Subresource("binding", ("create",), kind="Binding"),
            Subresource("log", ("get",)),
        ),
        fields=_paths(
            "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
            "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
        ),
        boolean_fields=frozenset({"spec.hostNetwork"}),
    ),
    Resource(
        "", "v1", "namespaces", "Namespace", "namespace",
        namespaced=False, short_names=("ns",), fields=_paths("status.phase"),
        subresources=(STATUS,),
        verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
    ),
    Resource(
        "", "v1", "events", "Event", "event",
        short_names=("ev",),
        fields={
            **_paths(
                "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
                "involvedObject.uid", "involvedObject.apiVersion",
                "involvedObject.resourceVersion", "involvedObject.fieldPath",
                "reason", "reportingComponent", "type",
            ),
            "source": ("source", "component"),
        },
    ),
    Resource(
        "", "v1", "serviceaccounts", "ServiceAccount", "serviceaccount",
        short_names=("sa",),
        subresources=(
            Subresource(
                "token", ("create",),
                kind="TokenRequest", group="authentication.k8s.io", version="v1",
            ),
        ),
    ),
    Resource("", "v1", "configmaps", "ConfigMap", "configmap", short_names=("cm",)),
    Resource(
        "", "v1", "services", "Service", "service",
        short_names=("svc",), categories=("all",), subresources=(STATUS,),
    ),
    Resource(
        "apps", "v1", "daemonsets", "DaemonSet", "daemonset",
        short_names=("ds",), categories=("all",), subresources=(STATUS,), counts_generation=True,
    ),
    Resource(
        "apps", "v1", "deployments", "Deployment", "deployment",
        short_names=("deploy",), categories=("all",), subresources=(SCALE, STATUS),
        counts_generation=True,
    ),
    Resource(
        "apps", "v1", "replicasets", "ReplicaSet", "replicaset",
        short_names=("rs",), categories=("all",), subresources=(SCALE, STATUS),
        counts_generation=True,
    ),
    Resource(
        "apps", "v1", "statefulsets", "StatefulSet", "statefulset",
        short_names=("sts",), categories=("all",), subresources=(SCALE, STATUS),
        counts_generation=True,
    ),
    Resource(
        "batch", "v1", "jobs", "Job", "job",
        categories=("all",), subresources=(STATUS,), counts_generation=True,
        fields=_paths("status.successful"),
    ),
    Resource(
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "poddisruptionbudget",
        short_names=("pdb",), subresources=(STATUS,), counts_generation=True,
    ),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", "lease"),
    Resource(
        "authentication.k8s.io", "v1", "tokenreviews", "TokenReview", "tokenreview",
        namespaced=False, verbs=("create",), virtual=True,
    ),
    Resource(
        "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview",
        "selfsubjectreview", namespaced=False, verbs=("create",), virtual=True,
    ),
    Resource(
        "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview",
        "subjectaccessreview", namespaced=False, verbs=("create",), virtual=True,
    ),
    Resource(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview",
        "selfsubjectaccessreview", namespaced=False, verbs=("create",), virtual=True,
    ),
)  # fmt: skip

BY_PLURAL: Mapping[str, Resource] = {one.plural: one for one in RESOURCES}
BY_ADDRESS: Mapping[tuple[str, str, str], Resource] = {
    (one.group, one.version, one.plural): one for one in RESOURCES
}
BY_KIND: Mapping[str, Resource] = {one.kind: one for one in RESOURCES}
GROUP_VERSIONS: tuple[tuple[str, str], ...] = tuple(
    dict.fromkeys((one.group, one.version) for one in RESOURCES)
)
