"""Addresses to listen on: refused with a sentence, reserved for one node, shared by its workers."""

import socket

import pytest

from flagrelay.errors import SettingError
from flagrelay.server.listeners import beside, bind, reserve, url_of


def test_an_address_that_cannot_be_listened_on_is_refused_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("192.0.2.1", 0), ("no.such.host.invalid", 0), ("x" * 300, 0)):
            for take in (bind, reserve):
                with pytest.raises(SettingError, match=r"cannot listen on .* port \d+: .*--host") as refused:
                    take(host, number)
                assert "\n" not in str(refused.value)


def test_a_port_of_the_systems_choice_is_free_at_once() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_workers_listen_beside_each_other_at_a_reserved_address() -> None:
    with reserve("127.0.0.1", 0) as address, beside(address) as one, beside(address) as other:
        one.listen()
        other.listen()
        assert one.getsockname() == other.getsockname() == address.getsockname()


def test_a_node_does_not_share_its_address_with_another_of_the_same_user() -> None:
    with reserve("127.0.0.1", 0) as address, beside(address) as listener:
        listener.listen()
        with pytest.raises(SettingError, match="already in use"):
            reserve(*address.getsockname())


def test_a_reserved_address_is_free_again_after_its_connections_are_closed_from_our_side() -> None:
    with reserve("127.0.0.1", 0) as address:
        name = address.getsockname()
        with beside(address) as listener:
            listener.listen()
            with socket.create_connection(name) as client:
                accepted, _ = listener.accept()
                accepted.close()  # this side waits in TIME_WAIT
                assert client.recv(1) == b""
    with reserve(*name), pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)


def test_a_reserved_address_accepts_nothing_by_itself() -> None:
    with reserve("127.0.0.1", 0) as address, pytest.raises(ConnectionRefusedError):
        socket.create_connection(address.getsockname())


def test_a_url_is_what_a_client_on_this_machine_takes() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, tls=False) == f"http://127.0.0.1:{port}"
        assert url_of(listener, tls=True) == f"https://127.0.0.1:{port}"
    with bind("::1", 0) as listener:
        assert url_of(listener, tls=False) == f"http://[::1]:{listener.getsockname()[1]}"
