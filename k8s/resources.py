"""Where the kinds live at the API server."""

from __future__ import annotations

from dataclasses import dataclass

from k8s.objects import Job, Narrow, Node, ObjectMeta, Pod, PodDisruptionBudget


@dataclass(frozen=True)
class Resource:
    """A kind at the API server and the narrow struct that its objects are read into."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    struct: type[Narrow]

    @property
    def api_version(self) -> str:
        """As in an object's apiVersion: "v1", "batch/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """Path of the group and version: "/api/v1", "/apis/batch/v1"."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(
        self,
        name: str | None = None,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """Path of the collection (all namespaces without one), an object or its subresource."""
        parts = [self.base]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


class Bare(Narrow, frozen=True):
    """An object of which only the metadata matters."""

    metadata: ObjectMeta


NODES = Resource("", "v1", "nodes", "Node", False, Node)
PODS = Resource("", "v1", "pods", "Pod", True, Pod)
JOBS = Resource("batch", "v1", "jobs", "Job", True, Job)
BUDGETS = Resource(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, PodDisruptionBudget
)
# Only to know whether a pod's DaemonSet is still there.
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet", True, Bare)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, Bare)
EVENTS = Resource("", "v1", "events", "Event", True, Bare)
