"""Listings against a server that speaks /v1."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.unit.cli.conftest import V1, Asked, Ended
from tests.unit.cli.documents import NODE, operation

Run = Callable[..., Ended]


def _page(*items: dict, following: str | None = None) -> tuple[int, dict]:
    return 200, {"items": list(items), "next": following}


def test_nodes_are_an_aligned_table_that_tells_the_age_and_the_cause(v1: V1, pitwall: Run) -> None:
    v1.on("GET", "nodes", _page(NODE, {**NODE, "name": "b", "health_since": None}))
    ended = pitwall("nodes", url=v1.url)
    assert ended.code == 0
    title, first, second = ended.out.splitlines()
    assert title.split()[:3] == ["NODE", "HEALTH", "FOR"]
    assert "GPU 3 has fallen off the bus" in first
    assert "7/8" in first
    assert first.index("Failing") == title.index("HEALTH") == second.index("Failing")
    assert second.split()[2] == "-"


def test_json_writes_the_servers_documents_unchanged_also_fields_this_version_does_not_know(
    v1: V1, pitwall: Run
) -> None:
    document = {**NODE, "field_of_the_next_version": 1}
    v1.on("GET", "nodes", _page(document))
    ended = pitwall("nodes", "-o", "json", url=v1.url)
    assert json.loads(ended.out) == [document]


def test_wide_shows_more_columns(v1: V1, pitwall: Run) -> None:
    v1.on("GET", "nodes", _page(NODE))
    assert "RACK" not in pitwall("nodes", url=v1.url).out
    assert "RACK" in pitwall("nodes", "-o", "wide", url=v1.url).out


def test_filters_go_to_the_server_and_pages_are_followed_to_the_limit(v1: V1, pitwall: Run) -> None:
    def pages(asked: Asked) -> tuple[int, dict]:
        names = ["a", "b"] if "after" not in asked.params else ["c", "d"]
        return _page(*({**NODE, "name": name} for name in names), following="x")

    v1.on("GET", "nodes", pages)
    ended = pitwall("nodes", "--health", "Failing", "--rack", "a-1", "--limit", "4", url=v1.url)
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == ["a", "b", "c", "d"]
    assert v1.asked[0].params == {"health": "Failing", "rack": "a-1", "limit": "4"}
    assert v1.asked[1].params["after"] == "x"
    assert len(v1.asked) == 2


def test_an_empty_listing_says_so_apart_from_the_table_and_is_an_empty_array_in_json(
    v1: V1, pitwall: Run
) -> None:
    v1.on("GET", "incidents", _page())
    ended = pitwall("incidents", url=v1.url)
    assert (ended.code, ended.out) == (0, "")
    assert "No incident is open" in ended.err
    assert json.loads(pitwall("incidents", "-o", "json", url=v1.url).out) == []


def test_letters_that_steer_a_terminal_are_not_written(v1: V1, pitwall: Run) -> None:
    v1.on("GET", "nodes", _page({**NODE, "health_reason": "x\x1b[2Jy\nz\x9b31m"}))
    ended = pitwall("nodes", url=v1.url)
    assert "x?[2Jy z?31m" in ended.out
    assert "\x1b" not in ended.out


def test_status_counts_the_fleet_and_names_blind_sources(v1: V1, pitwall: Run) -> None:
    document = {
        "cluster": "demo",
        "at": "2026-01-01T00:00:00Z",
        "counts": {
            "nodes": 64,
            "gpus": 512,
            "nodes_by_health": {"Healthy": 63, "Failing": 1, "Unknown": 0},
            "nodes_by_service": {"In service": 64},
            "gpus_by_health": {"Healthy": 511, "Failing": 1},
            "gpus_requested": 400,
            "gpus_usable": 504,
            "gpus_free": 104,
            "gpus_on_probation": 8,
            "jobs_running": 5,
            "jobs_at_risk": 1,
            "incidents_open": 1,
            "operations_open": 0,
        },
        "sources": [
            {
                "source": "prometheus",
                "state": "blind",
                "message": "no answer",
                "last_ok_at": None,
                "updated_at": "2026-01-01T00:00:00Z",
            }
        ],
    }
    v1.on("GET", "status", (200, document))
    ended = pitwall("status", url=v1.url)
    assert "64: 63 Healthy, 1 Failing" in ended.out
    assert "104 free (8 on probation) of 504 usable" in ended.out
    assert "blind" in ended.out
    assert json.loads(pitwall("status", "-o", "json", url=v1.url).out) == document


def test_an_operation_is_shown_with_its_steps_and_the_choices_it_waits_for(
    v1: V1, pitwall: Run
) -> None:
    step = {
        "id": 1,
        "name": "cordon",
        "target": "Node//h100-a-1-1",
        "target_uid": "u",
        "state": "done",
        "attempts": 2,
        "message": "",
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": None,
    }
    choice = {"name": "confirm_power_off", "label": "The node is off", "warning": "make sure"}
    document = operation("Blocked", ended=False, steps=[step], choices=[choice])
    v1.on("GET", "operations/op-1", (200, document))
    ended = pitwall("operations", "op-1", url=v1.url)
    assert "Node//h100-a-1-1" in ended.out
    assert "pitwall choose op-1 confirm_power_off" in ended.out
    assert json.loads(pitwall("operations", "op-1", "-o", "json", url=v1.url).out) == document


def test_the_token_is_read_from_its_file_and_sent(v1: V1, pitwall: Run, tmp_path: Path) -> None:
    v1.on("GET", "nodes", _page())
    (tmp_path / "token").write_text("secret-1\n")
    pitwall("nodes", url=v1.url, PITWALL_TOKEN_FILE=str(tmp_path / "token"))
    pitwall("nodes", url=v1.url, PITWALL_TOKEN="secret-2")
    pitwall("nodes", url=v1.url)
    sent = [asked.headers.get("authorization") for asked in v1.asked]
    assert sent == ["Bearer secret-1", "Bearer secret-2", None]


def test_the_demos_addresses_are_found_in_the_folder_and_the_environment_wins(
    v1: V1, pitwall: Run, tmp_path: Path
) -> None:
    v1.on("GET", "nodes", _page())
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "pitwall.env").write_text(f"PITWALL_URL='{v1.url}'\n")
    assert pitwall("nodes").code == 0
    assert pitwall("nodes", url="http://127.0.0.1:1").code == 1
