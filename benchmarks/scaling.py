"""Scaling: predictions a second by one process with all cores, and by actors of a cluster.

    python benchmarks/scaling.py FOLDER [--photos 4000] [--shard 100] [--cores 2] [--engine auto]
                                 [--repeat 3]

FOLDER has train and test; its photos are repeated by links until there are so many. Each way is a
process of its own. The rate is counted from the first answers to the last, so that what starting
takes stands apart; efficiency is the rate as a share of that of one process with all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import run, table
from predict import linked


def timed(steps, began: float) -> dict[str, float]:
    """Seconds until the first answers, and images a second from then on."""
    first: tuple[float, int] | None = None
    last = (began, 0)
    for done in steps:
        last = (time.perf_counter(), done)
        if first is None and done:
            first = last
    return {
        "start_s": first[0] - began,
        "rate": (last[1] - first[1]) / (last[0] - first[0]),
        "whole_s": time.perf_counter() - began,
    }


def one_process(photos: Path, head: Path, engine: str):
    import tlkit

    classifier = tlkit.load(head)
    for done, _ in enumerate(classifier.stream(photos, engine=engine), start=1):
        yield done


def by_actors(photos: Path, head: Path, out: Path, options: dict):
    from tlkit.options import ScoreOptions
    from tlkit.scale.scoring import Asked, score_events

    asked = Asked(paths=(str(photos),), out=str(out), head=head)
    for tick in score_events(asked, ScoreOptions(**options)):
        yield tick.done


def way(given: argparse.Namespace) -> dict[str, float]:
    began = time.perf_counter()
    if given.way == "here":
        return timed(one_process(given.folder, given.head, given.engine), began)
    import ray

    from tlkit.scale import pool

    actors, cpus = map(int, given.way.split("x"))
    with pool._quiet():
        ray.init(
            address="local", num_cpus=actors * cpus, include_dashboard=False,
            log_to_driver=False, logging_level="CRITICAL",
        )  # fmt: skip
    options = {"ray": "auto", "cpus": cpus, "shard": given.shard, "engine": given.engine}
    with tempfile.TemporaryDirectory() as out:
        found = timed(by_actors(given.folder, given.head, Path(out), options), began)
    ray.shutdown()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--shard", type=int, default=100)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    parser.add_argument("--head", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(way(given)))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["TLKIT_CACHE"] = str(place / "cache")
        photos = linked(given.folder, given.photos, place / "photos" / "all")
        head = place / "head"
        run([sys.executable, "-m", "tlkit", "fit", given.folder, "--out", head])
        ways = {
            f"one process, {given.cores} cores": "here",
            f"one actor of {given.cores} cores": f"1x{given.cores}",
            "one actor of 1 core": "1x1",
            f"{given.cores} actors of 1 core": f"{given.cores}x1",
        }
        found: dict[str, list[dict[str, float]]] = {one: [] for one in ways}
        for _ in range(given.repeat):
            for one, word in ways.items():
                words = [
                    sys.executable, __file__, photos, "--way", word, "--head", head, "--shard",
                    str(given.shard), "--engine", given.engine,
                ]  # fmt: skip
                told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found[one].append(json.loads(told.stdout.splitlines()[-1]))
        middle = {
            one: {key: statistics.median(each[key] for each in all) for key in all[0]}
            for one, all in found.items()
        }
        best = next(iter(middle.values()))["rate"]
        table(
            ["", "images/s", "efficiency", "until the first answers", "in all"],
            [
                [one, f"{each['rate']:.1f}", f"{each['rate'] / best:.2f}",
                 f"{each['start_s']:.1f} s", f"{each['whole_s']:.1f} s"]
                for one, each in middle.items()
            ],
        )  # fmt: skip
