"""Calls to the control API of the simulator that serves beside a directory."""

import json
from pathlib import Path
from typing import Any

import httpx

from app.cli.outcome import CommandFailed

TIMEOUT_SECONDS = 10.0


def call_simulator(
    directory: Path, method: str, path: str, *, body: dict | None = None, params: dict | None = None
) -> Any:
    """The decoded answer, None when it is empty. Raises CommandFailed in one sentence."""
    url = _control_url(directory)
    try:
        response = httpx.request(
            method, url + path, json=body, params=params, timeout=TIMEOUT_SECONDS
        )
    except httpx.TransportError as error:
        raise CommandFailed(
            f"The simulator of {directory} does not answer at {url} ({error}); start it with "
            f"`pitwall demo` or `pitwall simulate`."
        ) from error
    if response.status_code >= 400:
        raise CommandFailed(f"The simulator refused it: {_message(response)}")
    return response.json() if response.content else None


def _control_url(directory: Path) -> str:
    path = directory / "simulator.json"
    try:
        return str(json.loads(path.read_text())["control_url"]).rstrip("/")
    except FileNotFoundError as error:
        raise CommandFailed(
            f"{path} is not there, so no simulator runs beside it; start one with `pitwall demo`, or "
            f"name its directory with --directory."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandFailed(
            f"{path} can't be read as a simulator's addresses ({error}); start `pitwall demo` again."
        ) from error


def _message(response: httpx.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return response.text.strip() or response.reason_phrase
    if isinstance(document, dict):
        error = document.get("error", document)
        if isinstance(error, dict):
            return str(error.get("message", document))
        return str(error)
    return str(document)
