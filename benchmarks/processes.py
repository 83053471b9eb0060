"""Processes: features a second of one process with all cores, and of several that torchrun starts.

    python benchmarks/processes.py FOLDER [--photos 4000] [--processes 2] [--engine auto]
                                   [--repeat 3]

FOLDER has train and test; its training photos are copied until there are so many. The
rate is that of the pass over the training images, from its first answers to its last; efficiency is
the rate as a share of that of one process with all cores.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import table

WHAT = "features, train"


def repeated(source: Path, photos: int, place: Path) -> Path:
    """A folder of as many different photos: copies, with a number behind the bytes of each."""
    files = sorted(one for one in source.glob("*/*") if one.is_file())
    random.Random(0).shuffle(files)
    for number in range(photos):
        file = files[number % len(files)]
        copy = place / file.parent.name / f"{number:06d}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Copies of one image would be computed once.
        copy.write_bytes(file.read_bytes() + number.to_bytes(4, "little"))
    return place


def rate(folder: Path, engine: str) -> float:
    """Images a second of this process alone, as its ticks tell."""
    from tlkit import FitOptions, fit_events
    from tlkit.steps import Tick

    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as out:
        options = FitOptions(engine=engine, bank="none")
        for one in fit_events(folder, options, out=Path(out) / "run"):
            if isinstance(one, Tick) and one.what == WHAT:
                seen.append((time.perf_counter(), one.done))
            elif isinstance(one, Tick) and seen:
                break
    passed = [one for one in seen if one[1] > seen[0][1]]
    return (passed[-1][1] - passed[0][1]) / (passed[-1][0] - passed[0][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--way", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        from tlkit.ranks import here

        # Those of the others, which have as many images.
        own = rate(given.folder, given.engine)
        every = here().gather(own)
        if here().first:
            print(json.dumps(sum(every)))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        photos = repeated(given.folder / "train", given.photos, Path(name) / "photos")
        many = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={given.processes}",
        ]  # fmt: skip
        ways = {
            "one process, all cores": [sys.executable],
            f"{given.processes} processes": many,
        }
        found: dict[str, list[float]] = {one: [] for one in ways}
        for _ in range(given.repeat):
            for one, start in ways.items():
                words = [*start, __file__, photos, "--engine", given.engine, "--way"]
                told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found[one].append(json.loads(told.stdout.splitlines()[-1]))
        middle = {one: statistics.median(all) for one, all in found.items()}
        best = next(iter(middle.values()))
        table(
            ["", "images/s", "from to", "efficiency"],
            [
                [one, f"{each:.1f}", f"{min(found[one]):.1f} to {max(found[one]):.1f}",
                 f"{each / best:.2f}"]
                for one, each in middle.items()
            ],
        )  # fmt: skip
