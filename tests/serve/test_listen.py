"""The server on a socket: many at once, a graceful end, and what is refused before it begins."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tlkit.classifier import load
from tlkit.errors import OptionError
from tlkit.options import ServeOptions
from tlkit.serve.listen import bound

TOKEN = "a-token-of-enough-letters"


def test_two_hundred_at_once_lose_no_answer(address, head, photos):
    place = address(most_waiting=200)
    wanted = {one.path: one for one in load(head).predict(photos, engine="eager", device="cpu")}

    def ask(path):
        files = {"images": (path.name, path.read_bytes())}
        return path, client.post("/api/predict", files=files)

    many = httpx.Limits(max_connections=200)
    with (
        httpx.Client(base_url=place, timeout=60, limits=many) as client,
        ThreadPoolExecutor(200) as pool,
    ):
        found = list(pool.map(ask, [photos[i % len(photos)] for i in range(200)]))
    for path, answer in found:
        assert answer.status_code == 200
        (one,) = answer.json()["answers"]
        top = {likely["class"]: likely["probability"] for likely in one["top"]}
        assert top == pytest.approx(dict(wanted[path].top(3)), abs=1e-6)


@pytest.fixture
def process(head, tmp_path, tiny_plugin):
    """`tlkit serve` in a process of its own, once it listens, and its address."""
    running = []

    def started(*words):
        code = "from tlkit.cli import run; run()"
        one = subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(head), "--port", "0", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tiny_plugin), *sys.path])},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(one)
        return one, one.stdout.readline().split()[4]

    yield started
    for one in running:
        one.kill()
        one.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_under_way_is_answered_before_it_leaves(process, loopback, photos, number):
    one, place = process("--gather-ms", "1000")
    files = [("images", (path.name, path.read_bytes())) for path in photos[:5]]
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=place, timeout=60) as client:

        def ask():
            return pool.submit(httpx.post, f"{place}/api/predict", files=files, timeout=60)

        asked = ask()
        while b"tlkit_waiting_requests 1.0" not in client.get("/metrics").content:
            if asked.done():  # this machine was too busy to see it
                asked = ask()
        one.send_signal(number)
        assert len(asked.result().json()["answers"]) == 5
    _, said = one.communicate(timeout=30)
    assert one.returncode == 0
    assert "every request was answered" in said
    assert "Traceback" not in said


def test_a_second_interrupt_gives_up_what_is_under_way(process, loopback, photos):
    one, place = process("--gather-ms", "1000")
    host, port = place.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as begun:  # a body that does not come
        begun.sendall(
            b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        while b"tlkit_waiting_requests 1.0" not in httpx.get(f"{place}/metrics").content:
            pass
        one.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(timeout=0.5)
        one.send_signal(signal.SIGINT)
        _, said = one.communicate(timeout=30)
    assert "were given up" in said
    assert "every request was answered" not in said


def test_a_port_that_is_taken_is_refused():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OptionError, match="--port 0"),
    ):
        bound(ServeOptions(port=other.getsockname()[1]))


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(OptionError, match="nothing can listen there"):
        bound(ServeOptions(host="192.0.2.1", port=0))
