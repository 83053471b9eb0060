"""A small head that is served: to a client in the process, on a socket, and to a browser."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import tlkit
from tlkit.classifier import load
from tlkit.cli import main
from tlkit.options import PredictOptions, ServeOptions
from tlkit.serve.app import app_of, service
from tlkit.serve.listen import address_of, bound, server_of


@pytest.fixture(scope="session")
def head(colours, tmp_path_factory):
    """A run folder with a head on the tiny backbone."""
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("serve") / "run").run


@pytest.fixture(scope="session")
def photos(colours):
    return sorted(colours.rglob("*.png"))


@pytest.fixture
def start(head):
    """Serve: `start(options of predict, token=..., options of serve)`."""
    with contextlib.ExitStack() as ends:

        def started(options=None, token="", heads=head, **serving):
            options = PredictOptions.of({"device": "cpu", "engine": "eager", **(options or {})})
            made = service(load(heads), options, ServeOptions(**serving), token)
            ends.callback(made.desk.close)
            return made

        yield started


@pytest.fixture
def client(start):
    """The same, with a client in this process."""

    def started(*args, **named):
        app = app_of(start(*args, **named))
        return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)

    return started


@contextlib.contextmanager
def listening(served, limits=None):
    """The address of a server that runs in a thread."""
    with bound(replace(served.serving, port=0)) as place:
        server = server_of(served, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield address_of(place)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def listen(loopback):
    """What `start` has made, on a socket of this machine: its address."""
    with contextlib.ExitStack() as ends:
        yield lambda served, limits=None: ends.enter_context(listening(served, limits))


@pytest.fixture
def address(start, listen):
    """The same, started with these options."""
    return lambda *args, limits=None, **named: listen(start(*args, **named), limits)


@pytest.fixture
def busy():
    """Keep the thread that owns the heads busy until what is returned is set."""

    def waiting(served):
        go, begun = threading.Event(), threading.Event()

        def wait():
            begun.set()
            go.wait()

        served.desk.do(wait)
        begun.wait()
        return go

    return waiting


@pytest.fixture
def send():
    """Files as a form has them."""

    def files(*paths, name="images"):
        return [(name, (path.name, path.read_bytes(), "image/png")) for path in paths]

    return files


@pytest.fixture
def run():
    """Run a command; the result has `exit_code`, `stdout`, `stderr`."""
    return lambda *words: CliRunner().invoke(main, [str(one) for one in words])
