"""A person's word on an incident, as a request: checked, and written by the worker. Needs no view of Kubernetes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from app.errors import RequestRefused
from app.store.records import RequestRecord
from app.store.writes import incident_words

KINDS = ("acknowledge", "own", "note", "resolve", "reopen")


class IncidentParameters(msgspec.Struct, frozen=True):
    """Parameters of a word on an incident: `owner` for own, `text` for note, resolve and reopen."""

    incident_id: str = ""
    owner: str = ""
    text: str = ""


def answer(
    connection: Connection, cluster: str, request: RequestRecord, now: datetime
) -> dict[str, Any]:
    """Do what is asked and say which incident it was about. Raises RequestRefused, nothing being kept then."""
    asked = _read(request.parameters)
    incident_id, author = asked.incident_id.strip(), request.author
    words = asked.text.strip() or request.reason
    found: dict[str, Any] = {"incident_id": incident_id}
    match request.kind:
        case "acknowledge":
            incident_words.acknowledge(connection, cluster, incident_id, author=author, now=now)
        case "own":
            incident_words.own(
                connection, cluster, incident_id, owner=asked.owner, author=author, now=now
            )
        case "note":
            incident_words.note(
                connection, cluster, incident_id, words=words, author=author, now=now
            )
        case "resolve":
            found["nodes"] = incident_words.resolve(
                connection, cluster, incident_id, words=words, author=author, now=now
            )
        case "reopen":
            incident_words.reopen(
                connection, cluster, incident_id, words=words, author=author, now=now
            )
        case _:
            raise RequestRefused(f"There is no word {request.kind} on an incident.")
    return found


def _read(document: Mapping[str, Any]) -> IncidentParameters:
    try:
        asked = msgspec.convert(document, IncidentParameters)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"The request can't be read: {error}.") from error
    if "\x00" in asked.incident_id + asked.owner + asked.text:
        raise RequestRefused("The request holds a NUL character: leave it out.")
    return asked
