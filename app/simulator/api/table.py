"""The forms in which objects go out: whole, as metadata only, or as a table for kubectl."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.simulator.api.columns import columns_of
from app.simulator.resources import Resource
from app.simulator.store import Object, Record

JSON = "application/json"


def form_of(accept: str) -> str:
    """The first form of an Accept header that is served: "", "Table", "PartialObjectMetadata(List)"."""
    for offer in accept.split(","):
        parts = [part.strip() for part in offer.split(";")]
        if parts[0] not in (JSON, "*/*", "application/*", ""):
            continue
        parameters = dict(part.split("=", 1) for part in parts[1:] if "=" in part)
        form = parameters.get("as", "")
        if not form:
            return ""
        if parameters.get("g") == "meta.k8s.io" and parameters.get("v") == "v1":
            return form
    return ""


def content_type_of(form: str) -> str:
    return f"{JSON};as={form};v=v1;g=meta.k8s.io" if form else JSON


def as_metadata(obj: Object) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def as_table(
    resource: Resource,
    objects: Sequence[Object],
    *,
    now: datetime,
    include: str,
    list_metadata: Object,
) -> Object:
    """metav1.Table; `include` is the query's includeObject: None, Metadata or Object."""
    columns = columns_of(resource.plural)
    rows = []
    for obj in objects:
        row: Object = {"cells": [column.cell(obj, now) for column in columns]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = as_metadata(obj)
        rows.append(row)
    definitions = [
        {
            "name": column.name,
            "type": column.kind,
            "format": "name" if column.name == "Name" else "",
            "description": column.name,
            "priority": 1 if column.wide else 0,
        }
        for column in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def object_encoder(
    resource: Resource, form: str, *, now: Callable[[], datetime], include: str
) -> Callable[[Object], bytes] | None:
    """How a single object is written in `form`; None when it is its own encoding."""
    if form.startswith("PartialObjectMetadata"):
        return lambda obj: msgspec.json.encode(as_metadata(obj))
    if form == "Table":

        def encode(obj: Object) -> bytes:
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            bare = "creationTimestamp" not in obj["metadata"] or not obj["metadata"].get("name")
            objects = [] if bare else [obj]
            table = as_table(resource, objects, now=now(), include=include, list_metadata=metadata)
            if bare:  # a bookmark carries its revision in its row's object
                table["rows"] = [{"cells": [], "object": as_metadata(obj)}]
            return msgspec.json.encode(table)

        return encode
    return None


def list_body(
    resource: Resource,
    records: Sequence[Record],
    *,
    form: str,
    now: datetime,
    include: str,
    list_metadata: dict[str, Any],
) -> bytes:
    """A list in `form`."""
    if form == "Table":
        objects = [record.object for record in records]
        table = as_table(resource, objects, now=now, include=include, list_metadata=list_metadata)
        return msgspec.json.encode(table)
    if form.startswith("PartialObjectMetadata"):
        items = [as_metadata(record.object) for record in records]
        return msgspec.json.encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": list_metadata,
                "items": items,
            }
        )
    head = msgspec.json.encode(
        {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": list_metadata,
        }
    )
    return b'%s,"items":[%s]}' % (head[:-1], b",".join([one.encoded for one in records]))
