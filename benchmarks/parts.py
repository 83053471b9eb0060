"""Parts: what a photo costs, stage by stage, and how near all together come to the sum.

    python benchmarks/parts.py FOLDER [--backbone NAME] [--weights none] [--photos 256]

Decoding and the network alone, per engine; both together as a share of the limit
1 / (decode time + network time), all on the same cores; and eager as the peers run it: fp32,
contiguous, the allocator's defaults, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import table

if TYPE_CHECKING:
    from tlkit.backbone import InputSpec
    from tlkit.data.folder import Catalog
    from tlkit.model.assemble import Cut
    from tlkit.model.device import Compute


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """The median of several runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def frozen(backbone: str, weights: str, classes: int) -> tuple[Cut, Compute]:
    """The network whose features a fit would take, placed."""
    from tlkit.model.build import Plan, build
    from tlkit.model.device import compute_on
    from tlkit.plugins import choose

    plan = Plan(
        weights=weights, attach="replace", head="linear", hidden=1, dropout=0.0, pool="keep",
        freeze="features", seed=0,
    )  # fmt: skip
    cut = build(choose(backbone).backbone, plan, classes).cut
    compute = compute_on("cpu", "auto")
    compute.place(cut.model)
    return cut, compute


def first(folder: Path, photos: int) -> Catalog:
    """So many of the training photos."""
    import numpy as np

    from tlkit.data.folder import scan_parts

    catalog = scan_parts(folder).train
    return catalog.take(np.arange(len(catalog))[:photos])


def decode(catalog: Catalog, spec: InputSpec) -> None:
    """Read and resize every photo."""
    from tlkit.data.batches import batches, even_parts
    from tlkit.data.transforms import plain

    for _ in batches(
        catalog.paths, lambda image, position: plain(spec, image),
        sizes=even_parts(len(catalog), 32), at_least_px=spec.resize_px,
    ):  # fmt: skip
        pass


def as_peers_run_it(backbone: str, weights: str, photos: int) -> float:
    """Images per second of eager fp32 in torch's own defaults."""
    code = f"""
import json, time, torch
from tlkit.model.build import Plan, build
from tlkit.plugins import choose
plan = Plan(weights={weights!r}, attach="replace", head="linear", hidden=1, dropout=0.0,
            pool="keep", freeze="features", seed=0)
cut = build(choose({backbone!r}).backbone, plan, 2).cut
px = cut.model.spec.crop_px
images = torch.randint(0, 256, (32, cut.model.spec.channels, px, px), dtype=torch.uint8)
with torch.inference_mode():
    cut.frozen(images)
    started = time.perf_counter()
    for _ in range({max(1, photos // 32)}):
        cut.frozen(images)
print(json.dumps({max(1, photos // 32) * 32} / (time.perf_counter() - started)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--engines", default="eager,openvino")
    given = parser.parse_args()

    import torch

    from tlkit.data.transforms import augmentation
    from tlkit.model.engine import Runner, start, work_of
    from tlkit.model.engine import choose as engine
    from tlkit.steps import finish
    from tlkit.train.bank import extractor

    catalog = first(given.folder, given.photos)
    cut, compute = frozen(given.backbone, given.weights, len(catalog.classes))
    spec = cut.model.spec

    def both(runner: Runner, name: str) -> None:
        runs = extractor(cut, compute, backbone="", engine=name, images=10**9, keep=False)
        runs.started = runner
        finish(runs.fill(catalog, augmentation("none", spec, 0), views=1, what=""))

    def network(runner: Runner) -> None:
        for _ in range(rounds):
            runner(images)

    decode_s = seconds(partial(decode, catalog, spec)) / len(catalog)
    images = torch.randint(0, 256, (32, spec.channels, spec.crop_px, spec.crop_px)).byte()
    work, _ = work_of(cut.frozen, compute, images[:1], 10**9)
    rounds = max(1, given.photos // 32)
    peers = as_peers_run_it(given.backbone, given.weights, given.photos)
    print(
        f"{given.backbone}, {len(catalog)} photos, {work.multiply_adds / 1e6:.0f} million "
        f"multiply-adds each, {compute.words}"
    )
    print(f"decoding and resizing: {1 / decode_s:.0f} photos per second on all cores\n")
    rows = [["as peers run it", f"{peers:.1f}", "1.0", "", "", ""]]
    for name in given.engines.split(","):
        started = time.perf_counter()
        runner = start(engine(name, compute, work), cut.frozen, compute, images[:2], work)
        start_s = time.perf_counter() - started
        network_s = seconds(partial(network, runner)) / (32 * rounds)

        both_s = seconds(partial(both, runner, name)) / len(catalog)
        limit = 1 / (decode_s + network_s)
        rows.append(
            [
                name, f"{1 / network_s:.1f}", f"{1 / network_s / peers:.1f}", f"{start_s:.1f}",
                f"{1 / both_s:.1f}", f"{100 / both_s / limit:.0f} %",
            ]
        )  # fmt: skip
    table(
        ["engine", "network alone, images/s", "times peers", "start, s", "with decoding, images/s",
         "of the limit"],
        rows,
    )  # fmt: skip
