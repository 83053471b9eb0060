"""LR-find: whether the rate that `tlkit lr-find` suggests is as good as the default one.

    python benchmarks/lr_find.py FOLDER... [--backbones A,B] [--head mlp] [--seeds 5]

For every folder and backbone, each seed finds a rate, fits with it, and fits with the default rate,
on the same images and split. Shown are means over the seeds and their standard deviations, on the
validation images and on the folder's test part, which chooses nothing. Features of the frozen
backbone are computed once and found again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import table

import tlkit

DEFAULT_LR = 0.001
"""Of a head, as `tlkit fit` takes it."""


def fitted(folder: Path, lr: float, options: dict[str, object]) -> list[float]:
    """Return the validation accuracy and loss, and those of the test part, of one fit."""
    with tempfile.TemporaryDirectory() as out:
        result = tlkit.fit(folder, lr=lr, out=Path(out) / "run", **options)
    parts = (result.validation, result.test)
    return [value for part in parts for value in (part.accuracy, part.loss)]


def in_words(values: Sequence[float], *, percent: bool) -> str:
    """Return the mean and the standard deviation over seeds."""
    mean, std = statistics.fmean(values), statistics.stdev(values)
    return f"{100 * mean:.1f} ± {100 * std:.1f} %" if percent else f"{mean:.3f} ± {std:.3f}"


def rows_of(folder: Path, backbone: str, head: str, seeds: int) -> list[list[str]]:
    """Return a row for the suggested rates and one for the default."""
    suggested, scores = [], {"suggested": [], "default": []}
    for seed in range(seeds):
        options = {"backbone": backbone, "head": head, "seed": seed}
        rate = tlkit.find_lr(folder, **options).suggestion
        print(folder.name, backbone, seed, "suggests", rate, file=sys.stderr)
        if rate is None:
            continue
        suggested.append(rate)
        scores["suggested"].append(fitted(folder, rate, options))
        scores["default"].append(fitted(folder, DEFAULT_LR, options))
        print(*(f"{name} {rows[-1]}" for name, rows in scores.items()), file=sys.stderr)
    rates = {
        "suggested": f"{min(suggested):.2g} to {max(suggested):.2g}",
        "default": f"{DEFAULT_LR:g}",
    }
    return [
        [
            folder.name,
            backbone,
            f"{name} ({len(suggested)} of {seeds} seeds)",
            rates[name],
            *(
                in_words(column, percent=not number % 2)
                for number, column in enumerate(zip(*scores[name], strict=True))
            ),
        ]
        for name in scores
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbones", default="efficientnet_lite0")
    parser.add_argument("--head", default="mlp")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for folder in given.folders:
        for backbone in given.backbones.split(","):
            rows += rows_of(folder, backbone, given.head, given.seeds)
    table(
        ["folder", "backbone", "rate", "--lr", "val accuracy", "val loss", "test accuracy",
         "test loss"],
        rows,
    )  # fmt: skip
