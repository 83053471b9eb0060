"""Suggest: labels that are needed for a given accuracy, by `tlkit suggest` and by random choice.

    python benchmarks/suggest.py FOLDER [--photos 1000] [--seeds 5] [--batch 50] [--share 0.95]

The pool is the first `--photos` photos of each class of FOLDER/train. Each seed begins with two
labels of each class; every round a head learns from all labels so far, as `tlkit fit` would, and is
judged on FOLDER/test, and `--batch` photos more are labelled: by each rule from the same start. The
target is a share of the accuracy of a head that has learnt from the whole pool. How many labels it
takes is read off the isotonic regression of accuracy on labels: single rounds go up and down.
No rule sees a test photo.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import table
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from tlkit.ask.choice import Photos, chosen, margins
from tlkit.ask.study import Study, study
from tlkit.data.folder import Catalog, scan_parts
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.train.bank import Bank

START = 2
"""Labels of each class at the beginning."""

AFTER = 3
"""Rounds in a row at the target, after which a rule has arrived."""

Rule = Callable[[Photos, Photos, int, np.random.Generator], NDArray[np.int64]]
"""(photos without labels, those with, how many, chance) -> places of the former."""

RULES: dict[str, Rule] = {
    "random": lambda rest, _, count, chance: chance.choice(len(rest.told), count, replace=False),
    "suggest": lambda rest, labelled, count, _: chosen(rest, count, labelled),
    "suggest without labelled": lambda rest, _, count, chance: chosen(rest, count),
    "margin": lambda rest, _, count, chance: np.argsort(margins(rest.told))[:count],
}


def photos_of(told: NDArray[np.float64], bank: Bank) -> Photos:
    return Photos(told, lambda places: bank.at(places, 0))


def first_of(catalog: Catalog, count: int) -> Catalog:
    """The first photos of each class, or all."""
    places = [np.flatnonzero(catalog.labels == one) for one in range(len(catalog.classes))]
    return catalog.take(np.concatenate([one[: count or None] for one in places]))


def in_memory(bank: Bank) -> Bank:
    """They are read every round."""
    values = bank.at(np.arange(len(bank.labels)), 0)
    whole = replace(bank, places=np.arange(len(values))[:, None])
    return replace(whole, rows=lambda places: values[torch.from_numpy(places)])


def accuracy(told: NDArray[np.float64], bank: Bank) -> float:
    return float((told.argmax(axis=1) == bank.labels.numpy()).mean())


def needed(labels: list[int], scores: list[float], target: float) -> float:
    """Labels at which the isotonic regression reaches the target; nan where it does not."""
    every = np.arange(labels[0], labels[-1] + 1)
    curve = IsotonicRegression(out_of_bounds="clip").fit(labels, scores).predict(every)
    reached = np.flatnonzero(curve >= target)
    return float(every[reached[0]]) if len(reached) else float("nan")


def learn(asked: Study, rule: Rule, seed: int, given: argparse.Namespace, target: float) -> float:
    """Labels that a rule needs."""
    pool, test = asked.banks
    truth = pool.labels.numpy()
    chance = np.random.default_rng(seed)
    known = np.concatenate(
        [
            chance.choice(np.flatnonzero(truth == one), START, replace=False)
            for one in range(len(pool.catalog.classes))
        ]
    )
    labels: list[int] = []
    scores: list[float] = []
    while len(known) <= given.most:
        rest = pool.take(np.setdiff1d(np.arange(len(truth)), known), views=1)
        labelled = pool.take(known, views=1)
        judged, told, learnt = asked.told(labelled, [test, rest, labelled], seed=seed)
        labels.append(len(known))
        scores.append(accuracy(judged, test))
        if len(scores) >= AFTER and min(scores[-AFTER:]) >= target:
            break
        places = rule(photos_of(told, rest), photos_of(learnt, labelled), given.batch, chance)
        known = np.concatenate([known, np.setdiff1d(np.arange(len(truth)), known)[places]])
    print("  ".join(f"{n}: {a:.4f}" for n, a in zip(labels, scores, strict=True)), file=sys.stderr)
    return needed(labels, scores, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000, help="of each class; 0: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--share", type=float, default=0.95)
    parser.add_argument("--most", type=int, default=3000, help="labels, then a rule is given up")
    parser.add_argument("--rules", default="random,suggest")
    parser.add_argument("--backbone", default=FitOptions().backbone)
    given = parser.parse_args()
    parts = scan_parts(given.folder)
    assert parts.test is not None
    pool, judged = first_of(parts.train, given.photos), first_of(parts.test, given.photos)
    asked = finish(study(FitOptions(backbone=given.backbone), [pool, judged]))
    asked = replace(asked, banks=tuple(in_memory(one) for one in asked.banks))
    full = accuracy(asked.told(asked.banks[0], asked.banks[1:], seed=0)[0], asked.banks[1])
    print(
        f"{given.folder.name}: {len(pool):,} photos to choose from, {len(judged):,} to judge by; "
        f"all labels: {full:.2%}; target: {given.share * full:.2%}",
        flush=True,
    )
    names = given.rules.split(",")
    rows: list[list[float]] = []
    for seed in range(given.seeds):
        rows.append([learn(asked, RULES[one], seed, given, given.share * full) for one in names])
        print(seed, [f"{one} {n:.0f}" for one, n in zip(names, rows[-1], strict=True)], flush=True)
    found = np.array(rows)
    shares = found / found[:, :1]
    table(
        ["rule", "labels, mean (range)", f"of those of {names[0]}, mean (range)"],
        [
            [
                one,
                f"{found[:, at].mean():,.0f} ({found[:, at].min():,.0f} to "
                f"{found[:, at].max():,.0f})",
                f"{shares[:, at].mean():.2f} ({shares[:, at].min():.2f} to "
                f"{shares[:, at].max():.2f})",
            ]
            for at, one in enumerate(names)
        ],
    )
