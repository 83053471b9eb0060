"""Connections that never send a whole request are limited in number and in time."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tlkit.serve.connections import ConnectionLimits

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
BODY_TO_COME = (
    b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)


@pytest.fixture
def connect():
    """Open a connection to an address, and send some bytes."""
    with contextlib.ExitStack() as ends:

        def connected(place, sent=b""):
            host, port = place.removeprefix("http://").split(":")
            connection = socket.create_connection((host, int(port)), timeout=30)
            ends.enter_context(connection)
            connection.sendall(sent)
            return connection

        yield connected


def is_closed_by_server(connection):
    """Wait for the end, which may also come as a reset, behind any answer."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def answer_on(connection):
    """Wait for the whole answer about the server's health."""
    answer = b""
    while b'{"ok":true}' not in answer:
        received = connection.recv(1 << 16)
        assert received, "closed before it answered"
        answer += received
    return answer


@pytest.mark.parametrize("sent", [b"", HEAD, BODY_TO_COME])
def test_connections_without_a_whole_request_do_not_keep_others_out(address, connect, sent):
    place = address(limits=ConnectionLimits(max_connections=8, head_timeout_s=1000))
    idle = [connect(place, sent) for _ in range(40)]
    for _ in range(3):
        assert httpx.get(f"{place}/health/live", timeout=30).status_code == 200
    # The first went for those that came later.
    assert all(is_closed_by_server(connection) for connection in idle[:30])


@pytest.mark.parametrize("sent", [b"", HEAD])
def test_a_connection_without_the_head_of_a_request_is_closed_after_a_while(address, connect, sent):
    place = address(limits=ConnectionLimits(max_connections=8, head_timeout_s=0.2))
    assert is_closed_by_server(connect(place, sent))


def test_a_head_that_comes_byte_by_byte_gets_no_more_time(address, connect):
    place = address(limits=ConnectionLimits(max_connections=8, head_timeout_s=0.5))
    connection = connect(place, HEAD)
    connection.settimeout(0.05)
    sent = 0
    while sent < 10_000:
        try:
            connection.sendall(b"x")
            sent += 1
            assert connection.recv(1) == b""
            break
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
    assert sent < 10_000


def test_the_time_for_a_head_begins_anew_after_each_response(address, connect):
    place = address(limits=ConnectionLimits(max_connections=8, head_timeout_s=0.5))
    connection = connect(place, HEAD + b"\r\n")
    assert answer_on(connection).startswith(b"HTTP/1.1 200")
    connection.sendall(HEAD)
    assert is_closed_by_server(connection)


def test_a_request_whose_body_is_under_way_keeps_its_own_time(address, connect):
    place = address(limits=ConnectionLimits(max_connections=8, head_timeout_s=0.1), timeout=1.0)
    connection = connect(place, BODY_TO_COME)
    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")


def test_one_connection_may_send_one_request_after_another(address, connect):
    limits = ConnectionLimits(max_connections=8)
    connection = connect(address(limits=limits))
    for _ in range(3):
        connection.sendall(HEAD + b"\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")
    assert len(limits.connections) == 1


def test_an_answer_under_way_is_not_given_up_for_newer_connections(
    start, listen, connect, photos, send, busy
):
    served = start()
    limits = ConnectionLimits(max_connections=2)
    place = listen(served, limits)
    with ThreadPoolExecutor(1) as pool:
        go = busy(served)
        answer = pool.submit(httpx.post, f"{place}/api/predict", files=send(photos[0]), timeout=60)
        while limits.unfinished or not limits.connections:
            pass
        for _ in range(10):
            connect(place)
        assert httpx.get(f"{place}/health/live", timeout=30).status_code == 200
        go.set()
        assert answer.result().status_code == 200
