"""Dictionaries that change under a watch and hand out copies that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from k8s.objects import Pod

Object = TypeVar("Object")


class Kept(dict[str, Object]):
    """A dictionary that hands out frozen copies, a new one only after a change."""

    def __init__(self) -> None:
        super().__init__()
        self._copy: dict[str, Object] | None = None

    def put(self, key: str, item: Object) -> None:
        self[key] = item
        self._copy = None

    def drop(self, key: str) -> Object | None:
        self._copy = None
        return self.pop(key, None)

    def frozen(self) -> Mapping[str, Object]:
        if self._copy is None:
            self._copy = dict(self)
        return self._copy


class PodIndex:
    """Pods by a key. Inner dictionaries that a view has been given are copied before they change."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Pod]] = {}
        self._private: set[str] = set()
        self._copy: dict[str, dict[str, Pod]] | None = None

    def put(self, key: str, pod: Pod) -> None:
        self._writable(key)[pod.metadata.uid] = pod

    def drop(self, key: str, uid: str) -> None:
        if uid not in self._groups.get(key, ()):
            return
        group = self._writable(key)
        del group[uid]
        if not group:
            del self._groups[key]
            self._private.discard(key)

    def frozen(self) -> Mapping[str, Mapping[str, Pod]]:
        if self._copy is None:
            self._copy = dict(self._groups)
            self._private.clear()
        return self._copy

    def _writable(self, key: str) -> dict[str, Pod]:
        self._copy = None
        if key not in self._private:
            self._groups[key] = dict(self._groups.get(key, ()))
            self._private.add(key)
        return self._groups[key]
