"""Curve: whether the accuracy on all photos lies where `tlkit curve` on half of them expected it.

    python benchmarks/curve.py FOLDER [--seeds 10] [--full 140] [--judge 60] [--draws 5]

The photos of FOLDER, its parts together, are drawn anew for each seed. Of every class `full` photos
are all there is; `tlkit curve` sees half of these, draws its heads from them alone, and foretells
the accuracy on twice as many. The truth: heads that learn from `full` photos of every class, that
half among them, each judged by `judge` others that neither it nor the curve has seen; the mean of
several draws. It is known from so many judged photos, and has a noise of its own: an interval that
holds the true accuracy 95 times in 100 holds what was measured of it less often. So two counts are
printed: of measured truths inside, and of those inside once the noise is added to the interval.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import table

import tlkit
from tlkit.ask.law import Interval
from tlkit.ask.study import study
from tlkit.data.folder import scan_parts
from tlkit.options import FitOptions
from tlkit.steps import finish


def linked(folder: Path, place: Path) -> None:
    """Class folders with links to the photos of all parts of a folder."""
    for part, catalog in scan_parts(folder).named.items():
        for number, path in enumerate(catalog.paths):
            name = catalog.classes[int(catalog.labels[number])]
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name / f"{part}-{path.name}").symlink_to(path)


def holds(expected: Interval, reached: float, noise: float = 0.0) -> bool:
    """Whether an interval does, widened by 1.96 standard deviations of noise in quadrature."""
    low, high = expected.value - expected.low, expected.high - expected.value
    off = reached - expected.value
    return -math.hypot(low, 1.96 * noise) <= off <= math.hypot(high, 1.96 * noise)


def half_of(bank, full: int, draw: np.random.Generator) -> np.ndarray:
    """Photos for the curve: half of `full` of every class."""
    labels = bank.catalog.labels
    return np.concatenate(
        [draw.permutation(np.flatnonzero(labels == one))[: full // 2] for one in np.unique(labels)]
    )


def truth(asked, seen: np.ndarray, given: argparse.Namespace, seed: int) -> tuple[float, int]:
    """Accuracy of heads that learn from all, and how many photos have judged."""
    (bank,) = asked.banks
    labels = bank.catalog.labels
    right, judged = [], set()
    for number in range(given.truths):
        draw = np.random.default_rng([seed, number, 7])
        learn, judge = [seen], []
        for one in np.unique(labels):
            others = np.setdiff1d(np.flatnonzero(labels == one), seen)
            others = draw.permutation(others)
            judge.append(others[: given.judge])
            learn.append(others[given.judge : given.judge + given.full - given.full // 2])
        held = np.sort(np.concatenate(judge))
        rows = asked.told(
            bank.take(np.sort(np.concatenate(learn)), views=1),
            [bank.take(held, views=1)],
            seed=seed + number,
        )[0]
        right.append(float((rows.argmax(axis=1) == labels[held]).mean()))
        judged |= set(held.tolist())
    return statistics.fmean(right), len(judged)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--full", type=int, default=140, help="photos of each class, all there is")
    parser.add_argument("--judge", type=int, default=50, help="photos of each class that judge")
    parser.add_argument("--truths", type=int, default=2, help="draws of the truth")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--penalties", type=int, default=8, help="penalties that a head tries")
    given = parser.parse_args()
    rows, widths, hits, with_noise, naive = [], [], 0, 0, []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        linked(given.folder.resolve(), place / "pool")
        options = FitOptions(epochs=given.penalties, on_bad="skip")
        asked = finish(study(options, [scan_parts(place / "pool").train]))
        (bank,) = asked.banks
        for seed in range(given.first, given.first + given.seeds):
            half = half_of(bank, given.full, np.random.default_rng([seed, 3]))
            for path in bank.catalog.take(np.sort(half)).paths:
                own = place / f"half-{seed}" / path.parent.name
                own.mkdir(parents=True, exist_ok=True)
                (own / path.name).symlink_to(path.resolve())
            found = tlkit.curve(
                place / f"half-{seed}", seed=seed, draws=given.draws, penalties=given.penalties
            )
            expected = found.forecasts[1].accuracy
            reached, judged = truth(asked, half, given, seed)
            noise = math.sqrt(reached * (1 - reached) / judged)
            inside, about = holds(expected, reached), holds(expected, reached, noise)
            hits, with_noise = hits + inside, with_noise + about
            widths.append(expected.high - expected.low)
            naive.append(abs(found.points[-1].accuracy - reached) - abs(expected.value - reached))
            rows.append(
                [
                    str(seed), f"{found.points[-1].accuracy:.2%}", f"{expected.value:.2%}",
                    f"{expected.low:.2%} to {expected.high:.2%}", f"{reached:.2%}",
                    f"{noise:.2%}", "in" if inside else "within its noise" if about else "OUT",
                ]
            )  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    table(
        ["seed", "reached on 40 %", "expected on 100 %", "95 % interval", "truth", "its noise", ""],
        rows,
    )
    print(
        f"\n{hits} of {len(rows)} in, {with_noise} with the truth's noise; width "
        f"{statistics.median(widths):.2%} (median, {min(widths):.2%} to {max(widths):.2%}); "
        f"nearer to the truth than the last point by {statistics.fmean(naive):.2%}"
    )
