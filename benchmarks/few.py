"""Few: how good a head is that has learnt from a few photos of each class, over many draws.

    python benchmarks/few.py FOLDER [--sizes 1,2,5,10,20] [--draws 10]
        [--pool 500] [--judged 0] [--backbone NAME]

Photos are drawn from the first `--pool` of each class of FOLDER/train in a drawn order (0: all), as
many as each size says, and the head is judged on FOLDER/test (`--judged` of each class; 0: all),
which nothing is chosen by. The features are taken once. Beside tlkit: what it did before it knew of
few photos (a fifth held out, one of each class at least, to choose the penalty), and on the same
features scikit-learn's LogisticRegression as it comes, and the nearest class mean.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tlkit.ask.study import Study, study
from tlkit.data.folder import Catalog, scan_parts
from tlkit.metrics import measure
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.tables import markdown
from tlkit.train import run
from tlkit.train.bank import Bank

FEW = run.FEW


def share(catalog: Catalog, each: int, seed: int) -> NDArray[np.int64]:
    """Places of so many drawn photos of each class; of 0 all."""
    found = []
    for label in range(len(catalog.classes)):
        members = np.flatnonzero(catalog.labels == label)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        found.append(members[order[: each or None]])
    return np.sort(np.concatenate(found))


def rows(bank: Bank) -> NDArray[np.float32]:
    """(N, D)"""
    found: NDArray[np.float32] = torch.cat(list(bank.blocks())).numpy()
    return found


def tlkit(seen: Study, learn: Bank, test: Bank, seed: int) -> NDArray[np.float64]:
    """(T, C) as `tlkit fit` has it now."""
    run.FEW = FEW
    return seen.told(learn, [test], seed=seed)[0]


def before(seen: Study, learn: Bank, test: Bank, seed: int) -> NDArray[np.float64] | None:
    """The same where a part is held out however few there are; one of a class was refused."""
    if learn.catalog.counts.min() < 2:
        return None
    run.FEW = 0
    return seen.told(learn, [test], seed=seed)[0]


def logistic(seen: Study, learn: Bank, test: Bank, seed: int) -> NDArray[np.float64]:
    """scikit-learn's LogisticRegression, defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a hundred iterations were too few
        found = LogisticRegression().fit(rows(learn), learn.labels.numpy())
    chances: NDArray[np.float64] = found.predict_proba(rows(test)).astype(np.float64)
    return chances / chances.sum(axis=1, keepdims=True)


def nearest(seen: Study, learn: Bank, test: Bank, seed: int) -> NDArray[np.float64]:
    """All for the class with the nearest mean."""
    values, labels = rows(learn), learn.labels.numpy()
    means = np.stack([values[labels == one].mean(axis=0) for one in range(labels.max() + 1)])
    off = np.square(rows(test)[:, None] - means[None]).sum(axis=2)
    return np.eye(len(means))[off.argmin(axis=1)]


WAYS: dict[str, Callable[[Study, Bank, Bank, int], NDArray[np.float64] | None]] = {
    "tlkit": tlkit,
    "a fifth held out": before,
    "LogisticRegression": logistic,
    "nearest mean": nearest,
}


def drawn(seen: Study, each: int, draws: int) -> Iterator[list[str]]:
    """A line of the table for each way."""
    pool, test = seen.banks
    learns = [pool.take(share(pool.catalog, each, seed), views=1) for seed in range(draws)]
    for name, way in WAYS.items():
        found = [way(seen, one, test, seed) for seed, one in enumerate(learns)]
        scores = [
            measure(test.labels.numpy(), one, test.catalog.classes)
            for one in found
            if one is not None
        ]
        if not scores:
            yield [str(each), name, "refused", "", "", ""]
            continue
        right = 100 * np.array([one.accuracy for one in scores])
        sure = 100 * np.mean([one.calibration_error for one in scores])
        loss = np.mean([one.loss for one in scores])
        soft = name != "nearest mean"
        yield [
            str(each), name, f"{right.mean():.1f} ± {right.std(ddof=1):.1f}",
            f"{right.min():.1f} to {right.max():.1f}",
            f"{sure:.1f}" if soft else "", f"{loss:.3f}" if soft else "",
        ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="1,2,5,10,20")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--pool", type=int, default=500)
    parser.add_argument("--judged", type=int, default=0)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    given = parser.parse_args()
    parts = scan_parts(given.folder)
    if parts.test is None:
        sys.exit(f"{given.folder} has no test part to judge by")
    catalogs = [
        parts.train.take(share(parts.train, given.pool, 0)),
        parts.test.take(share(parts.test, given.judged, 0)),
    ]
    options = FitOptions(backbone=given.backbone, on_bad="skip")
    seen = finish(study(options, catalogs))
    pool, test = (len(one.labels) for one in seen.banks)
    print(f"{given.draws} draws from {pool} photos, each judged on {test}\n")
    head = ["of each class", "", "accuracy, %", "from, to", "calibration error, %", "loss (nats)"]
    lines = [
        line for each in map(int, given.sizes.split(",")) for line in drawn(seen, each, given.draws)
    ]
    print(markdown(head, lines))
