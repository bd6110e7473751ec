"""One search over all that has a name: nodes, GPUs, jobs, pods, incidents, operations."""

from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, or_, select

from app.store.engine import read
from app.store.page_records import HitRecord
from app.store.reads.rows import contains, table_of
from app.store.tables import Gpu, Incident, Job, Node, Operation, Pod

LEAST_LETTERS = 2
A_KIND = 6
"""Hits of one kind at most: who sees none of theirs among them types another letter."""

GPU_LETTERS = 4
"""A GPU is looked for from so many letters on: there are 350,000."""

_NODE, _GPU, _JOB = table_of(Node), table_of(Gpu), table_of(Job)
_POD, _INCIDENT, _OPERATION = table_of(Pod), table_of(Incident), table_of(Operation)


def search(engine: Engine, cluster: str, words: str) -> list[HitRecord]:
    """What carries the words in its name, UUID, serial or title: whole names first, then beginnings, then the rest.

    Empty for fewer than two letters.
    """
    words = words.strip()
    if len(words) < LEAST_LETTERS:
        return []
    with read(engine) as connection:
        return [
            *_named(connection, cluster, words, _NODE, "node", _NODE.c.name, second=_NODE.c.health),
            *(_gpus(connection, cluster, words) if len(words) >= GPU_LETTERS else ()),
            *_named(
                connection, cluster, words, _JOB, "job", _JOB.c.name, key=_JOB.c.uid,
                second=_JOB.c.namespace + " · " + _JOB.c.state, also=(_JOB.c.uid,),
            ),
            *_named(
                connection, cluster, words, _POD, "pod", _POD.c.name, key=func.coalesce(_POD.c.node, ""),
                second=_POD.c.namespace + " · " + func.coalesce(_POD.c.node, "on no node"), also=(_POD.c.uid,),
            ),
            *_named(
                connection, cluster, words, _INCIDENT, "incident", _INCIDENT.c.title, key=_INCIDENT.c.id,
                second=case((_INCIDENT.c.resolved_at.is_(None), "open"), else_="resolved"),
                also=(_INCIDENT.c.id, _INCIDENT.c.subject), newest=_INCIDENT.c.opened_at,
            ),
            *_named(
                connection, cluster, words, _OPERATION, "operation", _OPERATION.c.subject, key=_OPERATION.c.id,
                second=_OPERATION.c.kind + " · " + _OPERATION.c.state, also=(_OPERATION.c.id,),
                newest=_OPERATION.c.created_at,
            ),
        ]  # fmt: skip


def _named(
    connection: Connection,
    cluster: str,
    words: str,
    table: Any,
    kind: str,
    name: Any,
    *,
    second: Any,
    key: Any = None,
    also: tuple[Any, ...] = (),
    newest: Any = None,
) -> list[HitRecord]:
    pattern = contains(words)
    lowered = func.lower(name)
    nearness = case(
        (lowered == words.lower(), 0),
        (name.ilike(pattern.removeprefix("%"), escape="\\"), 1),
        else_=2,
    )
    rows = connection.execute(
        select(key if key is not None else name, name, second)
        .where(
            table.c.cluster == cluster,
            or_(name.ilike(pattern, escape="\\"), *(column == words for column in also)),
        )
        .order_by(nearness, *((newest.desc(),) if newest is not None else ()), name)
        .limit(A_KIND)
    )
    return [HitRecord(kind, str(row[0]), str(row[1]), str(row[2])) for row in rows]


def _gpus(connection: Connection, cluster: str, words: str) -> list[HitRecord]:
    """By the beginning of a UUID or of a serial number; the way leads to the GPU's node."""
    beginning = contains(words).removeprefix("%")
    uuid = beginning if words.lower().startswith("gpu-") else f"GPU-{beginning}"
    rows = connection.execute(
        select(_GPU.c.node, _GPU.c.uuid, _GPU.c.index, _GPU.c.serial)
        .where(
            and_(
                _GPU.c.cluster == cluster,
                or_(
                    _GPU.c.uuid.ilike(uuid, escape="\\"),
                    _GPU.c.serial.ilike(beginning, escape="\\"),
                ),
            )
        )
        .order_by(_GPU.c.uuid)
        .limit(A_KIND)
    )
    return [
        HitRecord(
            "gpu",
            str(row.node),
            str(row.uuid),
            f"GPU {'?' if row.index is None else row.index} of {row.node}"
            + (f" · serial {row.serial}" if row.serial else ""),
        )
        for row in rows
    ]
