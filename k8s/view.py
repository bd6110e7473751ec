"""The cluster's picture, kept up to date by reflectors and cheap to take.

A decision works on a view that no longer moves while changes come in (k8s.picture).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from k8s.client import Connection
from k8s.discovery import is_served, read_api_groups
from k8s.errors import KubernetesError
from k8s.picture import ClusterView as ClusterView
from k8s.picture import Picture
from k8s.picture import view_of as view_of
from k8s.reflector import WATCH_SECONDS, Change, Reflector
from k8s.resources import BUDGETS, DAEMONSETS, NAMESPACES, NODES, PODS, Resource
from k8s.workloads import KINDS, WorkloadKind

log = structlog.get_logger()

# How often a failed discovery is tried again, and how often newly installed kinds are looked for.
DISCOVERY_RETRY_SECONDS = 2.0
DISCOVERY_SECONDS = 60.0


class ClusterWatcher:
    """Runs one reflector a kind in a thread of its own and keeps the picture of them.

    Workload kinds that are not installed when it starts are looked for again each discovery_seconds; those
    whose CRD was removed are given up. enabled: kinds that the site lets be restarted though no real
    controller has been seen to do it (docs/kinds.md).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        kinds: Sequence[WorkloadKind] = KINDS,
        watch_seconds: int = WATCH_SECONDS,
        discovery_seconds: float = DISCOVERY_SECONDS,
        enabled: Collection[str] = (),
    ) -> None:
        self._connection = connection
        self._kinds = tuple(kinds)
        self._watch_seconds = watch_seconds
        self._discovery_seconds = discovery_seconds
        self._picture = Picture(self._kinds, enabled)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._reflectors: dict[Resource, Reflector] = {}
        self._stops: dict[Resource, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._api_groups: frozenset[str] = frozenset()
        self._discovered = threading.Event()

    @property
    def version(self) -> int:
        """Rises with each change of any object."""
        return self._picture.version

    @property
    def reflectors(self) -> Mapping[Resource, Reflector]:
        """The sources, for their state (failing_since, malformed_total, last_contact_at)."""
        return dict(self._reflectors)

    def start(self) -> None:
        """Starts the reflectors; returns at once."""
        for resource in (NODES, PODS, BUDGETS, NAMESPACES, DAEMONSETS):
            self._reflect(resource)
        self._run(self._discover, "kubernetes discovery")

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ends all threads; blocked watches are interrupted."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for stop in list(self._stops.values()):
            stop.set()
        for reflector in list(self._reflectors.values()):
            reflector.interrupt()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Waits until every source has been listed whole; False when that took longer (seconds)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stop.is_set() or self.synced, timeout) and (
                self.synced
            )

    def wait_changed(self, version: int, timeout: float | None = None) -> int:
        """Waits for a version beyond the given one, timeout seconds at most; returns the version."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stop.is_set() or self._picture.version != version, timeout
            )
            return self._picture.version

    @property
    def synced(self) -> bool:
        """True once discovery is done and every source has been listed whole."""
        return self._discovered.is_set() and all(
            reflector.synced.is_set() for reflector in list(self._reflectors.values())
        )

    @property
    def observed_at(self) -> datetime | None:
        """When the source that has been silent longest was last heard from (aware UTC)."""
        heard = [reflector.last_contact_at for reflector in list(self._reflectors.values())]
        known = [moment for moment in heard if moment is not None]
        return min(known) if known and len(known) == len(heard) else None

    def failures(self) -> Mapping[str, tuple[datetime, str]]:
        """The kinds that do not answer: since when, and the last error."""
        return {
            resource.kind: (reflector.failing_since, reflector.last_error)
            for resource, reflector in list(self._reflectors.items())
            if reflector.failing_since is not None
        }

    def view(self) -> ClusterView:
        """The cluster as of now; copies only what has changed since the last call."""
        with self._changed:
            return self._picture.view(
                observed_at=self.observed_at,
                synced=self.synced,
                api_groups=self._api_groups,
                watched=frozenset((one.group, one.kind) for one in list(self._reflectors)),
            )

    def _reflect(self, resource: Resource) -> None:
        reflector = Reflector(
            self._connection,
            resource,
            self._take,
            watch_seconds=self._watch_seconds,
            on_synced=self._wake,
        )
        stop = self._stops[resource] = threading.Event()
        self._reflectors[resource] = reflector
        self._run(lambda: reflector.run(stop), f"kubernetes {resource.plural}")
        if self._stop.is_set():  # set before this reflector could be told
            stop.set()

    def _run(self, target: Any, name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _take(self, change: Change) -> None:
        with self._changed:
            self._picture.take(change, self._api_groups)
            self._changed.notify_all()

    def _give_up(self, resource: Resource) -> None:
        """Stops watching a kind whose CRD was removed, and forgets what there was of it."""
        self._stops.pop(resource).set()
        reflector = self._reflectors.pop(resource)
        reflector.interrupt()
        with self._changed:
            for uid in reflector.known_uids():
                self._picture.gathered.drop(uid)
            self._picture.version += 1
            self._changed.notify_all()
        log.info("kubernetes kind is not installed any more", kind=resource.kind)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _discover(self) -> None:
        failing = False
        while not self._stop.is_set():
            try:
                groups = read_api_groups(self._connection)
                wanted = self._served(groups)
            except KubernetesError as error:
                if not failing:
                    log.warning("kubernetes discovery fails", error=str(error))
                failing = True
                self._stop.wait(DISCOVERY_RETRY_SECONDS)
                continue
            if failing:
                log.info("kubernetes discovery answers again")
                failing = False
            with self._changed:
                if groups != self._api_groups:
                    self._api_groups = groups
                    self._picture.read_again(groups)
                    self._changed.notify_all()
            watched = {kind.resource for kind in self._kinds} & self._reflectors.keys()
            for resource in watched - set(wanted):
                self._give_up(resource)
            for resource in wanted:
                if resource not in self._reflectors:
                    self._reflect(resource)
            self._discovered.set()
            self._wake()
            self._stop.wait(self._discovery_seconds)

    def _served(self, groups: frozenset[str]) -> list[Resource]:
        """The kinds to watch: one request a group and version that is there; of two versions the first."""
        found: dict[tuple[str, str], Resource] = {}
        for kind in self._kinds:
            resource = kind.resource
            key = (resource.group, resource.kind)
            if key in found or resource.group not in groups:
                continue
            if is_served(self._connection, resource):
                found[key] = resource
        return list(found.values())
