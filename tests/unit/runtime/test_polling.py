"""Which threads wait for sockets: chosen by us, unless by the operator, and only where gRPC knows the choice."""

import pytest
from sluiceway_runtime import polling


def test_no_threads_of_its_own_read_sockets_for_grpc() -> None:
    environment: dict[str, str] = {}
    polling.poll_in_one_thread(environment)
    assert environment == {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}


def test_what_the_operator_says_stands() -> None:
    environment = {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}
    polling.poll_in_one_thread(environment)
    assert environment == {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}


def test_a_later_release_is_told_nothing_that_it_may_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "version", lambda name: {"grpcio": "1.86.0"}[name])
    environment: dict[str, str] = {}
    polling.poll_in_one_thread(environment)
    assert environment == {}
