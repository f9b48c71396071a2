"""Which threads wait for sockets: chosen by us, unless by the operator, and only where gRPC knows the choice."""

import ctypes
import threading

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


def slack_ns() -> int:
    return int(ctypes.CDLL(None).prctl(polling.PR_GET_TIMERSLACK, 0, 0, 0, 0))


def test_threads_that_are_started_inside_may_oversleep_and_others_not() -> None:
    before_ns = slack_ns()
    found: list[int] = []
    with polling.leisurely_threads(2.0):
        thread = threading.Thread(target=lambda: found.append(slack_ns()))
        thread.start()
    assert slack_ns() == before_ns
    thread.join()
    later = threading.Thread(target=lambda: found.append(slack_ns()))
    later.start()
    later.join()
    assert found == [2_000_000_000, before_ns]
