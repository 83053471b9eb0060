"""Scan: names per second and memory of listing a folder of class folders, and of the next start.

    python benchmarks/scan.py [--count 1000000] [--classes 1000] [--repeat 5]

The folder is made of hard links to empty files in a temporary folder. Each way to list it has a
process of its own; imports do not count, nor does the memory that was there before. A first pass
that is not counted fills the disk's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measuring import in_turn, table

LINKS = 30_000
"""To one file; a disk has a limit."""


def made(place: Path, count: int, classes: int) -> Path:
    """A folder of so many empty images."""
    for label in range(classes):
        (place / f"class{label:04d}").mkdir(parents=True)
    for number in range(count):
        path = f"{place}/class{number * classes // count:04d}/{number:08d}.jpg"
        if number % LINKS == 0:
            Path(path).touch()
            first = path
        else:
            os.link(first, path)
    return place


def memory_mb() -> tuple[float, float]:
    """Of this process: now, and at most so far."""
    words = Path("/proc/self/status").read_text().splitlines()
    found = {one.split(":")[0]: one.split()[1] for one in words if one.startswith("Vm")}
    return int(found["VmRSS"]) / 1e3, int(found["VmHWM"]) / 1e3


def bare(folder: Path) -> int:
    """Every entry, and nothing of it kept."""
    return sum(1 for label in os.scandir(folder) for _ in os.scandir(label.path))


def listing(way: str, folder: Path) -> None:
    """List the folder in one way and print what it took."""
    if way == "ImageFolder":
        from torchvision.datasets import ImageFolder as look
    elif way == "scandir":
        look = bare
    else:
        from tlkit.data.folder import scan as look
    before, most = memory_mb()
    began = time.perf_counter(), time.process_time()
    found = look(folder)
    seconds, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
    after, peak = memory_mb()
    count = found if isinstance(found, int) else len(found)
    said = {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "names_per_s": count / seconds,
        "kept_mb": after - before,
        "peak_mb": max(peak - max(before, most), 0),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        listing(given.way[0], Path(given.way[1]))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        place = made(Path(name) / "photos", given.count, given.classes)
        time.sleep(3)  # what has changed just now is not kept
        again = [sys.executable, __file__, "--way"]
        no_cache = ["env", "TLKIT_CACHE_GB=0"]
        os.environ["TLKIT_CACHE"] = str(Path(name) / "cache")
        programs = {
            "bare os.scandir": [*again, "scandir", place],
            "ImageFolder": [*again, "ImageFolder", place],
            "tlkit, scan": [*no_cache, *again, "scan", place],
            "tlkit, scan and keep, then from what was kept": [*again, "scan", place],
        }
        bare(place)
        in_turn({"keep": programs["tlkit, scan and keep, then from what was kept"]}, 1)
        programs["tlkit, restart"] = programs.pop("tlkit, scan and keep, then from what was kept")
        costs = in_turn(programs, given.repeat)
    rows = []
    for name, runs in costs.items():
        middle = {
            key: statistics.median(one.said[key] for one in runs)
            for key in ("seconds", "cpu_s", "names_per_s", "kept_mb", "peak_mb")
        }
        rows.append(
            [
                name, f"{middle['seconds']:.3f}", f"{middle['cpu_s']:.3f}",
                f"{middle['names_per_s']:,.0f}", f"{middle['kept_mb']:.0f}",
                f"{middle['peak_mb']:.0f}",
            ]
        )  # fmt: skip
    header = ["", "seconds", "CPU seconds", "names per second", "MB kept", "MB more at most"]
    table(header, rows)
