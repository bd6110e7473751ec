import socket
from dataclasses import astuple, replace

import pytest

from app.demo.errors import DemoError
from app.demo.ports import Ports, take_ports

ANY = Ports(web=0, ingest=0, kubernetes=0, prometheus=0, control=0)


def test_zero_takes_free_ports_and_no_two_are_the_same() -> None:
    taken = astuple(take_ports(ANY))
    assert 0 not in taken
    assert len(set(taken)) == len(taken)


def test_a_port_in_use_is_told_with_what_wants_it_and_how_to_move_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DemoError) as refused:
            take_ports(replace(ANY, web=port))
    assert f"Port {port} " in str(refused.value)
    assert "in use" in str(refused.value)
    assert "--port-web" in str(refused.value)


def test_a_port_that_was_just_let_go_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # this end waits in TIME_WAIT
            client.recv(1)
    assert take_ports(replace(ANY, ingest=port)).ingest == port


def test_the_same_port_twice_is_told() -> None:
    port = take_ports(ANY).web
    with pytest.raises(DemoError, match="in use"):
        take_ports(replace(ANY, web=port, ingest=port))


def test_what_is_no_port_is_told() -> None:
    with pytest.raises(DemoError, match="65535"):
        take_ports(replace(ANY, web=70000))
