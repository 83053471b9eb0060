"""Learning: accuracy on the test part, and what the probabilities are worth, by number of photos.

    python benchmarks/learning.py FOLDER [--sizes 5,10,20,50,100] [--seeds 5]

Each seed draws so many photos of each class of FOLDER/train, fits a head on them with the default
options and that seed, and judges it on FOLDER/test. Features are computed once and found again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import table

import tlkit


def drawn(folder: Path, per_class: int, seed: int, place: Path) -> Path:
    """A folder of links: so many photos of each class to learn from, and all of the test part."""
    draw = random.Random(seed)
    for one in sorted((folder / "train").iterdir()):
        files = sorted(one.iterdir())
        (place / "train" / one.name).mkdir(parents=True)
        for file in draw.sample(files, min(per_class, len(files))):
            (place / "train" / one.name / file.name).symlink_to(file)
    (place / "test").symlink_to(folder / "test")
    return place


def in_words(values: Sequence[float], digits: int) -> str:
    """Median and range, in percent."""
    middle, low, high = (
        f"{100 * one:.{digits}f}" for one in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} % ({low} to {high})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="5,10,20,50,100")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for size in map(int, given.sizes.split(",")):
        scores = []
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as name:
                place = drawn(given.folder.resolve(), size, seed, Path(name) / "photos")
                scores.append(tlkit.fit(place, seed=seed, out=Path(name) / "run").test)
        accuracies = [one.accuracy for one in scores]
        errors = [one.calibration_error for one in scores]
        rows.append([given.folder.name, str(size), in_words(accuracies, 1), in_words(errors, 1)])
        print(rows[-1], file=sys.stderr)
    table(["photos", "of each class", "accuracy", "calibration error"], rows)
