"""Poison: images exchanged while a pass reads them leave nothing false in the cache.

    python tests/stress/poison.py [--count 20] [--seed 0]

While the frozen part runs over a folder, pairs of its files are exchanged all the time, with their
times, and put back at the end. A second pass with that cache must then find for every image what a
pass with a new cache makes of it. Features that went through the network in other batches may
differ in their last bits; those of another image differ by far more. Prints what it found, and
ends with status 1 if a feature is another image's, or if no exchange was ever met.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import tlkit.train.bank as bank
from tlkit.data.folder import scan
from tlkit.data.transforms import augmentation
from tlkit.model.build import Plan, build
from tlkit.model.device import compute_on
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder

PLAN = Plan(
    weights="default", attach="replace", head="linear", hidden=1, dropout=0.0, pool="keep",
    freeze="features", seed=0,
)  # fmt: skip
SAME = 1e-2
"""Largest difference of features of one image, as a share of the largest number."""


def exchange(one: Path, other: Path) -> None:
    """Swap two files. For a moment one of them is not there."""
    away = one.with_name("away")
    one.rename(away)
    other.rename(one)
    away.rename(other)


class Exchanger(threading.Thread):
    """Swaps random pairs until it is stopped, and puts all back."""

    def __init__(self, files: list[Path], rng: random.Random) -> None:
        super().__init__()
        self._files, self._rng = files, rng
        self._stopped = threading.Event()
        self.count = 0

    def run(self) -> None:
        swapped = []
        while not self._stopped.wait(self._rng.uniform(0, 0.002)):
            pair = self._rng.sample(self._files, 2)
            exchange(*pair)
            swapped.append(pair)
        for pair in reversed(swapped):
            exchange(*pair)
        self.count = len(swapped)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def features(folder: Path) -> tuple[dict[str, Tensor], int]:
    """The row of each image that could be read, and how many were told to have changed."""
    cut = build(TINY, PLAN, 3).cut
    runs = bank.extractor(cut, compute_on("cpu", "fp32"), backbone="tiny", engine="eager")
    told = []
    look = augmentation("none", cut.model.spec, 0)
    found = finish(
        runs.look_up(scan(folder), look, views=1, what="features"),
        lambda step: told.append(step.text) if "while it was read" in str(step) else None,
    )
    rows = found.rows(found.places[:, 0]) if len(found.places) else []
    return dict(zip(found.catalog.files, rows, strict=True)), len(told)


def others(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """The images of which one has not what the other has."""
    largest = torch.stack(list(theirs.values())).abs().max()
    return [
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours
        or name not in theirs
        or float((ours[name] - theirs[name]).abs().max() / largest) > SAME
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    wrong, told, exchanges = [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photos = make_folder(place / "photos", per_class=40)
        files = sorted(photos.rglob("*.png"))
        # Each at another brightness: those of one class are as alike as one and the same.
        for number, path in enumerate(files):
            pixels = np.full(
                (48, 64, 3), (number * 37 % 256, number * 101 % 256, number * 53 % 256)
            )
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        os.environ["TLKIT_CACHE"] = str(place / "new")
        expected, _ = features(photos)
        for number in range(given.count):
            # In every second pass nothing is held in memory from one look to the next.
            bank.HELD = 0 if number % 2 else 64 << 20
            os.environ["TLKIT_CACHE"] = str(place / f"cache-{number}")
            exchanger = Exchanger(files, rng)
            exchanger.start()
            told += features(photos)[1]
            exchanger.stop()
            gc.collect()
            exchanges += exchanger.count
            false = others(features(photos)[0], expected)
            wrong += false
            print(f"{number}: {exchanger.count} exchanges, {false or 'same'}")
    print(json.dumps({"exchanges": exchanges, "passes that met one": told, "wrong": len(wrong)}))
    sys.exit(bool(wrong) or not told)
