"""Split: which image is for learning, which for judging.

In: the `Parts` of a folder. Out: `Splits`. Next door: folder.py, batches.py.
Seeded, and a function of the file names alone: the same folder and seed give the same split on
every machine, in whatever order the disk lists the files.
Not here: training on folds (train/folds.py), what is left of that (tlkit/folds.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tlkit.data.folder import Catalog, Parts
from tlkit.errors import FolderError, OptionError, listing


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What is learnt from, what chooses, what judges. All have the classes of `train`."""

    train: Catalog
    val: Catalog
    """Empty where tlkit made it and no class has an image to spare."""
    test: Catalog | None
    whole: Catalog | None
    """What `train` and `val` share out; None where the folder has a val of its own."""
    checked: bool = False
    """Whether every image of `train` and `val` is known to be readable."""


def split(parts: Parts, *, val_fraction: float, seed: int, group_by: str = "") -> Splits:
    """The folder's own val, or a stratified share of its training images.

    At least one image of every class is on either side, and with `group_by` every group on one
    (see `groups`); but the only image of a class is in `train`. Raises `FolderError` for fewer than
    two classes, and with `group_by` for classes too small to be shared out.
    """
    _refuse_small(parts, least=2 if group_by and parts.val is None else 1)
    if group_by:
        _refuse_torn(parts, group_by)
    if parts.val is not None:
        return Splits(train=parts.train, val=parts.val, test=parts.test, whole=None)
    if group_by:
        chosen = _held_groups(parts.train, groups(parts.train, group_by), val_fraction, seed)
        return _parted(parts, np.flatnonzero(chosen))
    return _parted(parts, held_out(parts.train, val_fraction, seed))


def held_out(catalog: Catalog, fraction: float, seed: int) -> NDArray[np.int64]:
    """Positions, sorted, of a stratified share of the images: at least one of every class.

    One of every class is left at least; so of a class with a single image there is none.
    """
    found = []
    for label in range(len(catalog.classes)):
        members = np.flatnonzero(catalog.labels == label)
        # scikit-learn's stratified split may leave a class of two or three with none held out.
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        found.append(members[order[:count]])
    return np.sort(np.concatenate(found))


def folds(parts: Parts, *, count: int, seed: int, group_by: str = "") -> tuple[Splits, ...]:
    """`count` splits of the training images; each image is in `val` of exactly one of them.

    Every class is shared out evenly: scikit-learn's StratifiedKFold, and with `group_by` its
    StratifiedGroupKFold, which keeps groups together (see `groups`) and is as even as they allow.
    Raises `FolderError` for a folder with a val part of its own, for fewer than two classes and for
    classes with fewer images, or groups, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if parts.val is not None:
        raise FolderError(
            f"{parts.val.root} is not needed",
            found="a val part of the folder's own, and folds",
            expected="one or the other: every fold is judged by a part of the training images",
            do=f"move its images into {parts.train.root} or away, or fit without --folds",
        )
    catalog = parts.train
    _refuse_small(parts, least=2)
    if group_by:
        _refuse_torn(parts, group_by)
    if not group_by:
        _refuse_few(catalog, catalog.counts.tolist(), count, "image")
        kind = StratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
        made = kind.split(catalog.labels, catalog.labels)
        return tuple(_parted(parts, val) for _, val in made)
    group = groups(catalog, group_by)
    several = [len(np.unique(group[catalog.labels == one])) for one in range(len(catalog.classes))]
    _refuse_few(catalog, several, count, "group")
    kind = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    result = tuple(
        _parted(parts, np.sort(val)) for _, val in kind.split(catalog.labels, catalog.labels, group)
    )
    if not all(len(one.val) and one.train.counts.all() for one in result):
        raise _no_way(
            catalog, f"{count} folds with something to judge by, and all classes to learn"
        )
    return result


def groups(catalog: Catalog, pattern: str) -> NDArray[np.int64]:
    """(N,) the group of each image, numbered in the order of their names.

    The regular expression `pattern` is searched in the path below the class folder; its first
    group, or the whole match where it has none, is the name. One name in two classes is one group.
    Raises `OptionError` for a pattern that is none, `FolderError` for images that it does not name.
    """
    found = _group_names(catalog, pattern)
    number = {name: i for i, name in enumerate(sorted(set(found)))}
    return np.array([number[one] for one in found], dtype=np.int64)


def _group_names(catalog: Catalog, pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(
            "the pattern of the groups is not a regular expression",
            found=f"--group-by {pattern}: {error}",
            expected=r"such as '^[^/]+' (a folder in the class folder) or '^(\w+?)_' (up to a _)",
            do="correct the pattern",
        ) from error
    below = [one.partition("/")[2] for one in catalog.files]
    found = [compiled.search(one) for one in below]
    names = [one and one.group(1 if compiled.groups else 0) for one in found]
    missed = [file for file, name in zip(catalog.files, names, strict=True) if not name]
    if missed:
        raise FolderError(
            f"the pattern of the groups does not name {len(missed)} of {len(names)} images",
            found=listing(missed, most=5),
            expected=f"a match of --group-by {pattern} in the path below the class folder, such as "
            f"'{missed[0].partition('/')[2]}'",
            do="change the pattern, or rename the images",
        )
    return [one for one in names if one]


def _refuse_torn(parts: Parts, pattern: str) -> None:
    """Raise `FolderError` for groups that are in more than one part of the folder."""
    within = {name: set(_group_names(part, pattern)) for name, part in parts.named.items()}
    for (one, first), (other, second) in combinations(within.items(), 2):
        if torn := sorted(first & second):
            raise FolderError(
                f"{len(torn)} groups are both in {one} and in {other}",
                found=listing(torn, most=5),
                expected="every group in one part: images that belong together are not to judge "
                "what was learnt from each other",
                do="move each group to one part, or leave --group-by out",
            )


def _parted(parts: Parts, val: NDArray[np.int64]) -> Splits:
    """The split that holds out these positions (sorted) of the training images."""
    train = np.setdiff1d(np.arange(len(parts.train)), val)
    return Splits(
        train=parts.train.take(train),
        val=parts.train.take(val),
        test=parts.test,
        whole=parts.train,
    )


def _held_groups(
    catalog: Catalog, group: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """(N,) whether an image is held out: whole groups, near `fraction` of every class.

    Large groups are placed first, as in scikit-learn's StratifiedGroupKFold, those of one size in a
    drawn order; one is held out where that brings the shares nearer.
    """
    sizes = np.zeros((group.max() + 1, len(catalog.classes)))
    np.add.at(sizes, (group, catalog.labels), 1)
    totals = sizes.sum(axis=0)
    order = np.random.default_rng([seed]).permutation(len(sizes))
    order = order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]
    held = np.zeros(len(sizes), dtype=bool)

    def distance(more: int) -> float:
        now = sizes[held].sum(axis=0) + sizes[more]
        # No class is held out as a whole.
        return float(np.square(now / totals - fraction).sum()) if (now < totals).all() else np.inf

    best = float(len(totals) * fraction**2)
    for one in order:
        if distance(one) < best:
            best = distance(one)
            held[one] = True
    for label in range(len(totals)):
        if not sizes[held, label].sum():
            having = [one for one in order if sizes[one, label]]
            nearest = min(having, key=distance)
            if distance(nearest) == np.inf:
                raise _no_way(catalog, f"'{catalog.classes[label]}' in more than one group")
            held[nearest] = True
    return held[group]


def _refuse_few(catalog: Catalog, there: list[int], count: int, what: str) -> None:
    few = [
        f"{one} {what}{'s' if one != 1 else ''} in '{name}'"
        for name, one in zip(catalog.classes, there, strict=True)
        if one < count
    ]
    if few:
        raise FolderError(
            f"{catalog.root} has classes that cannot be shared out over {count} folds",
            found=listing(few),
            expected=f"at least {count} {what}s of each class: one for every fold",
            do="use fewer folds"
            + (", or a pattern that makes more groups" if what == "group" else "")
            + ", add images, or remove these folders",
        )


def _no_way(catalog: Catalog, expected: str) -> FolderError:
    return FolderError(
        f"the groups of {catalog.root} cannot be shared out",
        found="groups so large that a side is left without a class",
        expected=expected,
        do="use a pattern that makes more and smaller groups, or fewer folds",
    )


def _refuse_small(parts: Parts, *, least: int) -> None:
    catalog = parts.train
    if len(catalog.classes) < 2:
        raise FolderError(
            f"{catalog.root} has one class",
            found=f"only '{catalog.classes[0]}' ({len(catalog)} images)",
            expected="at least two class folders with images",
            do="add a folder for each other class; `others/` will do",
        )
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
