"""Split: which image is for learning, which for judging.

In: the `Parts` of a folder. Out: `Splits`. Next door: folder.py, batches.py.
Seeded, and a function of the file names alone: the same folder and seed give the same split on
every machine, in whatever order the disk lists the files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlkit.data.folder import Catalog, Parts
from tlkit.errors import FolderError, listing


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What is learnt from, what chooses, what judges. All have the classes of `train`."""

    train: Catalog
    val: Catalog
    test: Catalog | None
    made: bool
    """Whether tlkit held `val` out itself; False where the folder has one."""


def split(parts: Parts, *, val_fraction: float, seed: int) -> Splits:
    """The folder's own val, or a stratified share of its training images.

    At least one image of every class is on either side. Raises `FolderError` for fewer than two
    classes and for classes too small to be shared out.
    """
    _refuse_small(parts)
    if parts.val is not None:
        return Splits(train=parts.train, val=parts.val, test=parts.test, made=False)
    held_out = []
    for label in range(len(parts.train.classes)):
        members = np.flatnonzero(parts.train.labels == label)
        # scikit-learn's stratified split may leave a class of two or three with none held out.
        count = min(max(1, round(len(members) * val_fraction)), len(members) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        held_out.append(members[order[:count]])
    val = np.sort(np.concatenate(held_out))
    train = np.setdiff1d(np.arange(len(parts.train)), val)
    return Splits(
        train=parts.train.take(train), val=parts.train.take(val), test=parts.test, made=True
    )


def _refuse_small(parts: Parts) -> None:
    catalog = parts.train
    if len(catalog.classes) < 2:
        raise FolderError(
            f"{catalog.root} has one class",
            found=f"only '{catalog.classes[0]}' ({len(catalog)} images)",
            expected="at least two class folders with images",
            do="add a folder for each other class; `others/` will do",
        )
    least = 2 if parts.val is None else 1
    small = [
        f"{count} image in '{name}'"
        for name, count in zip(catalog.classes, catalog.counts, strict=True)
        if count < least
    ]
    if small:
        raise FolderError(
            f"{catalog.root} has classes that cannot be shared out",
            found=listing(small),
            expected="at least 2 images of each class: one to learn from, one to judge by",
            do="add images, or remove these folders",
        )
