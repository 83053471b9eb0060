"""Flood: connections that never send a whole request do not stop a server that may open few files.

    python tests/stress/flood.py [--seconds 30] [--connections 260] [--files 256]

`tlkit serve` runs in a process of its own that may have 256 files open. Clients hold 260
connections without a whole request, of three kinds, and open each anew when it is closed. All that
time the health page and the answers for an image have to come, and the log has to stay short.
Prints what it counted, and ends with status 1 if an answer did not come.
"""

from __future__ import annotations

import argparse
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

import tlkit
from tlkit.testing import make_folder

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
BODY_TO_COME = (
    b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)
BEGINNINGS = (b"", HEAD, BODY_TO_COME)

LONGEST_LOG = 100_000
"""Bytes."""

PAUSE_S = 0.2
"""Between two questions."""


def serve(run: Path, files: int, log: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the server with a limit of open files; return it and its address."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    code = "from tlkit.cli import run; run()"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(run), "--port", "0"],
            stdout=subprocess.PIPE, stderr=stderr, text=True, preexec_fn=limit,
        )  # fmt: skip
    assert server.stdout is not None
    return server, server.stdout.readline().split()[4]


def hold(address: tuple[str, int], count: int, stop: threading.Event, opened: Counter[str]) -> None:
    """Keep so many connections without a whole request open until `stop` is set."""
    with selectors.DefaultSelector() as watched:
        while not stop.is_set():
            while len(watched.get_map()) < count and not stop.is_set():
                try:
                    connection = socket.create_connection(address, timeout=1)
                    connection.sendall(BEGINNINGS[opened["connections"] % len(BEGINNINGS)])
                except OSError:
                    opened["refused"] += 1
                    break
                connection.setblocking(False)
                watched.register(connection, selectors.EVENT_READ)
                opened["connections"] += 1
            for key, _ in watched.select(timeout=0.1):
                watched.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
        for key in list(watched.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


def main() -> int:
    """Run the flood."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=260)
    parser.add_argument("--files", type=int, default=256)
    options = parser.parse_args()
    answers: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        photos = make_folder(Path(place) / "photos", per_class=8)
        run = tlkit.fit(photos, backbone="resnet20", weights="none", out=Path(place) / "run").run
        image = next(photos.rglob("*.png"))
        log = Path(place) / "log"
        server, base = serve(run, options.files, log)
        host, port = base.removeprefix("http://").split(":")
        stop = threading.Event()
        flood = threading.Thread(
            target=hold, args=((host, int(port)), options.connections, stop, opened)
        )
        try:
            flood.start()
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                for name, ask in {
                    "health": lambda: httpx.get(f"{base}/health/ready", timeout=10),
                    "predict": lambda: httpx.post(
                        f"{base}/api/predict",
                        files={"images": (image.name, image.read_bytes())},
                        timeout=10,
                    ),
                }.items():
                    try:
                        answers[f"{name} {ask().status_code}"] += 1
                    except httpx.HTTPError as error:
                        answers[f"{name} {type(error).__name__}"] += 1
                time.sleep(PAUSE_S)
        finally:
            stop.set()
            flood.join()
            server.terminate()
            server.wait(timeout=60)
        log_bytes = log.stat().st_size
        if log_bytes > LONGEST_LOG or any("200" not in name for name in answers):
            print(log.read_text()[-2000:])
    print(
        f"{options.files} files, {opened['connections']} connections opened "
        f"({opened['refused']} refused) in {options.seconds:g} s; answers: {dict(answers)}; "
        f"log: {log_bytes} bytes"
    )
    lost = [name for name in answers if not name.endswith(" 200")]
    return int(bool(lost) or len(answers) < 2 or log_bytes > LONGEST_LOG)


if __name__ == "__main__":
    sys.exit(main())
