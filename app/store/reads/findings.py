"""Reads of findings by their episodes, as an incident names them."""

from collections.abc import Sequence

from sqlalchemy import Engine, select

from app.store.engine import read
from app.store.reads.rows import columns_of, table_of
from app.store.records import FindingRecord
from app.store.tables import Finding, Gpu

_FINDING = table_of(Finding)
_GPU = table_of(Gpu)

EPISODES_AT_ONCE = 500
"""SQLite takes at most 999 parameters in an older build's statement."""


def findings_of_episodes(
    engine: Engine, cluster: str, episodes: Sequence[str], *, limit: int = 1000
) -> list[FindingRecord]:
    """The findings of these episodes, open or closed: the first to open first; of the first `limit` episodes."""
    wanted = list(dict.fromkeys(episodes))[: max(0, limit)]
    found: list[FindingRecord] = []
    with read(engine) as connection:
        for at in range(0, len(wanted), EPISODES_AT_ONCE):
            statement = select(*columns_of(Finding, FindingRecord)).where(
                _FINDING.c.cluster == cluster,
                _FINDING.c.episode.in_(wanted[at : at + EPISODES_AT_ONCE]),
            )
            found += [FindingRecord(*row) for row in connection.execute(statement)]
    return sorted(found, key=lambda finding: (finding.opened_at, finding.episode))


def gpu_indexes(engine: Engine, cluster: str, uuids: Sequence[str]) -> dict[str, int]:
    """NVML's index of each of these GPUs that is known and has one."""
    wanted = list(dict.fromkeys(uuids))
    known: dict[str, int] = {}
    with read(engine) as connection:
        for at in range(0, len(wanted), EPISODES_AT_ONCE):
            statement = select(_GPU.c.uuid, _GPU.c.index).where(
                _GPU.c.cluster == cluster,
                _GPU.c.uuid.in_(wanted[at : at + EPISODES_AT_ONCE]),
                _GPU.c.index.is_not(None),
            )
            known |= {str(row[0]): int(row[1]) for row in connection.execute(statement)}
    return known
