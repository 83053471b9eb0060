"""Serve: many requests at once against a running server, each answer held against tlkit's own.

    python benchmarks/serve.py FOLDER [--requests 200] [--rounds 3] [--tta none]

FOLDER has train and test. A head is fitted on it and served by processes of its own: one that takes
the images of many requests together through the network, one that takes them one by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from measuring import run, watch

import tlkit
from tlkit.model.engine import PROMISE
from tlkit.predict.run import Prediction
from tlkit.tables import markdown


@dataclass(frozen=True)
class Load:
    """What a number of requests took."""

    wall_s: float
    latencies_s: list[float]
    lost: int
    wrong: int
    largest_change: float


@contextmanager
def served(head: Path, *words: str) -> Iterator[tuple[str, list[float]]]:
    """The address of a server, and its peak memory in bytes, which grows."""
    command = [sys.executable, "-m", "tlkit", "serve", str(head), "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    done, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, done, peak), daemon=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[4]
        watcher.start()
        yield address, peak
    finally:
        process.terminate()
        process.wait(timeout=60)
        done.set()
        watcher.join()


def load(address: str, photos: Sequence[Prediction], at_once: int, tta: str) -> Load:
    """A request for each photo, so many of them under way at any time."""
    bodies = {one.path: one.path.read_bytes() for one in photos}
    start = threading.Barrier(at_once)

    def ask(mine: Sequence[Prediction]) -> list[tuple[float, bool, float]]:
        found = []
        with httpx.Client(base_url=address, timeout=300) as client:
            start.wait()
            for one in mine:
                began = time.perf_counter()
                files = {"images": (one.path.name, bodies[one.path])}
                try:
                    query = {"tta": tta, "top": 1000}
                    answer = client.post("/api/predict", params=query, files=files)
                    answer.raise_for_status()
                except httpx.HTTPError:
                    found.append((time.perf_counter() - began, False, 0.0))
                    continue
                took = time.perf_counter() - began
                (said,) = answer.json()["answers"]
                there = {each["class"]: each["probability"] for each in said["top"]}
                wanted = dict(one.top(len(one.classes)))
                change = max(abs(there[name] - likely) for name, likely in wanted.items())
                same = said["answer"] == one.label and said["path"] == one.path.name
                found.append((took, True, change if same else 1.0))
        return found

    with ThreadPoolExecutor(at_once) as pool:
        shares = [photos[number::at_once] for number in range(at_once)]
        began = time.perf_counter()
        rows = [row for part in pool.map(ask, shares) for row in part]
        wall_s = time.perf_counter() - began
    return Load(
        wall_s=wall_s,
        latencies_s=[took for took, _, _ in rows],
        lost=sum(not there for _, there, _ in rows),
        wrong=sum(change > PROMISE for _, _, change in rows),
        largest_change=max(change for _, _, change in rows),
    )


def row(name: str, loads: Sequence[Load], peak: float) -> list[str]:
    """A line of the table."""
    every = [took for one in loads for took in one.latencies_s]
    count = len(every) // len(loads)
    rates = sorted(count / one.wall_s for one in loads)
    return [
        name,
        f"{statistics.median(rates):.1f} ({rates[0]:.1f} to {rates[-1]:.1f})",
        f"{1000 * statistics.median(every):.0f}",
        f"{1000 * statistics.quantiles(every, n=100)[98]:.0f}",
        f"{peak / 1e6:,.0f}",
        f"{sum(one.lost for one in loads)} of {len(every)}",
        f"{sum(one.wrong for one in loads)} of {len(every)}",
        f"{max(one.largest_change for one in loads):.1g}",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tta", default="none")
    given = parser.parse_args()
    photos = sorted(one for one in (given.folder / "test").rglob("*") if one.is_file())
    some = photos[:: max(1, len(photos) // given.requests)][: given.requests]
    with tempfile.TemporaryDirectory() as name:
        head = Path(name) / "head"
        os.environ["TLKIT_CACHE"] = str(Path(name) / "cache")
        run([sys.executable, "-m", "tlkit", "fit", given.folder, "--out", head])
        own = tlkit.load(head).predict(some, tta=given.tta)
        wanted = [one for one in own if isinstance(one, Prediction)]
        rows = []
        for title, at_once, words in (
            ("all at once", len(wanted), ()),
            ("all at once, --batch 1", len(wanted), ("--batch", "1", "--gather-ms", "0")),
            ("one after another", 1, ()),
        ):
            with served(head, *words) as (address, peak):
                load(address, wanted[:8], 1, given.tta)  # engines have started
                loads = [load(address, wanted, at_once, given.tta) for _ in range(given.rounds)]
            rows.append(row(title, loads, peak[0]))
    print(
        markdown(
            (
                f"{len(wanted)} requests", "requests a second", "median ms", "99th ms",
                "peak MB", "lost", "wrong", "largest change of a probability",
            ),
            rows,
        )
    )  # fmt: skip
