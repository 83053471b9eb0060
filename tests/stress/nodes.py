"""Nodes: machines that are lost at random moments while a list is scored lose and double nothing.

    python tests/stress/nodes.py [--count 20] [--seed 0] [--nodes 3]

Jobs of many small shards over a Ray cluster of several nodes, which are processes here. Whenever a
random while has passed, one of them is killed without warning and another one started. Prints what
it found, and ends with status 1 if an image is missing or there twice, an answer is another than
without a cluster, or a part that was there was written again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from pyarrow import parquet

import tlkit
from tlkit.testing import make_folder

SHARD = 8


def rows(out: Path) -> dict[str, list[object]]:
    return parquet.read_table(out).to_pydict()


def faults(found: dict[str, list[object]], expected: dict[str, list[object]]) -> list[str]:
    """What is wrong with a job's answers."""
    wrong = []
    if sorted(found["path"]) != sorted(expected["path"]):
        wrong.append(f"{len(found['path'])} rows for {len(expected['path'])} images")
    if found["path"] != expected["path"]:
        return [*wrong, "another order"]
    if found["error"] != expected["error"] or found["class_1"] != expected["class_1"]:
        wrong.append("other answers")
    pairs = zip(found["probability_1"], expected["probability_1"], strict=True)
    if any(a is not None and not np.isclose(a, b, atol=1e-6) for a, b in pairs):
        wrong.append("other probabilities")
    return wrong


class Killer:
    """Kills a node and starts another one, again and again, while a job is done."""

    def __init__(self, cluster, nodes, rng, most, out) -> None:
        self.cluster, self.nodes, self.rng, self.most, self.out = cluster, nodes, rng, most, out
        self.kills, self.seen = 0, {}

    def work(self, job: Future) -> None:
        while True:
            wait([job], self.rng.uniform(1.0, 6.0))
            if job.done() or self.kills == self.most:
                return
            self.look()
            victim = self.nodes.pop(self.rng.randrange(len(self.nodes)))
            self.cluster.remove_node(victim, allow_graceful=False)
            self.kills += 1
            print(f"  killed a node, {len(self.seen)} parts there", flush=True)
            self.nodes.append(self.cluster.add_node(num_cpus=1))

    def look(self) -> None:
        for one in self.out.glob("part-*.parquet"):
            self.seen.setdefault(one.name, one.stat().st_mtime_ns)

    def rewritten(self) -> list[str]:
        return [name for name, at in self.seen.items() if (self.out / name).stat().st_mtime_ns > at]


def main(count: int, seed: int, nodes: int, place: Path) -> int:
    rng = random.Random(seed)
    os.environ["TLKIT_CACHE"] = str(place / "cache")
    photos = make_folder(place / "photos", per_class=4000, size=(96, 80))
    (photos / "red" / "bad.jpg").write_bytes(b"not an image")
    small = make_folder(place / "small")
    head = tlkit.fit(
        small, backbone="resnet20", weights="none", freeze="features", out=place / "run", epochs=1
    ).head
    tlkit.score(photos, place / "here", head=head, shard=SHARD)
    expected = rows(place / "here")
    from tlkit.scale.pool import _quiet

    with _quiet():
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        there = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    kills, jobs, wrong, rewritten = 0, 0, [], 0
    began = time.monotonic()
    while kills < count:
        out = place / f"job-{jobs}"
        killer = Killer(cluster, there, rng, count - kills, out)
        # Nodes are started by the main thread alone.
        with ThreadPoolExecutor(1) as pool:
            scoring = pool.submit(
                tlkit.score, photos, out, head=head, shard=SHARD, ray="auto", cpus=1
            )
            killer.work(scoring)
            left = scoring.result()
        found = faults(rows(out), expected)
        if left.bad != 1 or not (out / "_manifest.json").exists():
            found.append(f"{left.bad} bad images")
        wrong += found
        again = killer.rewritten()
        rewritten += len(again)
        kills, jobs = kills + killer.kills, jobs + 1
        print(
            f"job {jobs}: {killer.kills} kills, {left.parts} parts, {found or 'same'}", flush=True
        )
    ray.shutdown()
    cluster.shutdown()
    told = {
        "kills": kills, "jobs": jobs, "images of each": len(expected["path"]), "wrong": wrong,
        "parts written again": rewritten, "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(told))
    return bool(wrong or rewritten)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(given.count, given.seed, given.nodes, Path(name)))
