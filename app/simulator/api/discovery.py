"""What the API serves, as clients discover it: groups, resources, version, a thin OpenAPI."""

from typing import Any

from app.simulator.resources import GROUP_VERSIONS, RESOURCES, Resource

Document = dict[str, Any]

VERSION: Document = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0+pitwall.simulator",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
_PATCH_FORMATS = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def wants_aggregated(accept: str) -> bool:
    return "as=APIGroupDiscoveryList" in accept and "v=v2" in accept.replace("v=v2beta1", "")


AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def core_versions() -> Document:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def _group(name: str, version: str) -> Document:
    found = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [found], "preferredVersion": found}


def groups() -> Document:
    found = [_group(name, version) for name, version in GROUP_VERSIONS if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(name: str) -> Document | None:
    """One APIGroup, None when it is not served."""
    for known, version in GROUP_VERSIONS:
        if known == name and name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, version)}
    return None


def resources(group_name: str, version: str) -> Document | None:
    """The APIResourceList of one group and version, None when it is not served."""
    if (group_name, version) not in GROUP_VERSIONS:
        return None
    found: list[Document] = []
    for one in _resources_of(group_name, version):
        found.append(_entry(one))
        for sub in one.subresources:
            entry: Document = {
                "name": f"{one.plural}/{sub.name}",
                "singularName": "",
                "namespaced": one.namespaced,
                "kind": sub.kind or one.kind,
                "verbs": list(sub.verbs),
            }
            if sub.version:
                entry |= {"group": sub.group, "version": sub.version}
            found.append(entry)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group_name}/{version}" if group_name else version,
        "resources": found,
    }


def _resources_of(group_name: str, version: str) -> list[Resource]:
    return [one for one in RESOURCES if (one.group, one.version) == (group_name, version)]


def _entry(one: Resource) -> Document:
    entry: Document = {
        "name": one.plural,
        "singularName": one.singular,
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    return entry


def aggregated(*, core: bool) -> Document:
    """APIGroupDiscoveryList of /api (core) or /apis."""
    items = []
    for name, version in GROUP_VERSIONS:
        if bool(name) == core:
            continue
        found = [_aggregated_entry(one) for one in _resources_of(name, version)]
        items.append(
            {
                "metadata": {"name": name} if name else {},
                "versions": [
                    {"version": version, "resources": found, "freshness": "Current"},
                ],
            }
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_entry(one: Resource) -> Document:
    entry: Document = {
        "resource": one.plural,
        "responseKind": {"group": one.group, "version": one.version, "kind": one.kind},
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    if one.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    "group": (sub.group or "") if sub.version else one.group,
                    "version": sub.version or one.version,
                    "kind": sub.kind or one.kind,
                },
                "verbs": list(sub.verbs),
            }
            for sub in one.subresources
        ]
    return entry


def openapi_paths() -> Document:
    """/openapi/v3: where the document of each group and version lies."""
    found = {}
    for name, version in GROUP_VERSIONS:
        path = f"apis/{name}/{version}" if name else f"api/{version}"
        found[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash=simulator"}
    return {"paths": found}


def openapi_document(group_name: str, version: str) -> Document | None:
    """The paths of one group and version with their parameters, without schemas.

    kubectl reads from it which parameters (fieldValidation, dryRun) the server takes itself.
    """
    if (group_name, version) not in GROUP_VERSIONS:
        return None
    base = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    paths: Document = {}
    for one in _resources_of(group_name, version):
        kind = {"group": one.group, "version": one.version, "kind": one.kind}
        where = f"{base}/namespaces/{{namespace}}" if one.namespaced else base
        operation: Document = {
            "x-kubernetes-group-version-kind": kind,
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
        }
        if "create" in one.verbs:
            action = {**operation, "x-kubernetes-action": "post"}
            paths[f"{where}/{one.plural}"] = {"post": action}
        if "patch" in one.verbs:
            content: Document = {form: {} for form in _PATCH_FORMATS}
            action = {
                **operation,
                "x-kubernetes-action": "patch",
                "requestBody": {"content": content},
            }
            paths[f"{where}/{one.plural}/{{name}}"] = {"patch": action}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Pitwall simulator", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": {}},
    }
