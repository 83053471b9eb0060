"""Vectors: features of photos that have no class, and what heads make of these.

In: a folder of photos or a list, and heads or options that say whose features. Out: `Bank`s, whose
rows are in the cache: what a fit has looked at is found again, and what is asked here too.
Next door: study.py (photos with classes, heads that learn), scale/features.py (parts on disks).
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.artifact import Head
from tlkit.calibration import familiarity
from tlkit.data.folder import Catalog, find_images
from tlkit.data.images import BadImage, refuse
from tlkit.data.names import Names, Paths
from tlkit.data.transforms import augmentation
from tlkit.errors import OptionError, listing
from tlkit.model.assemble import Cut
from tlkit.model.build import build, weight_sets
from tlkit.model.device import Compute, compute_for_answers, compute_on
from tlkit.model.finite import check_scores
from tlkit.options import Checked, FitOptions, PredictOptions
from tlkit.plugins import choose
from tlkit.predict.answers import probabilities_of
from tlkit.predict.ensemble import match, members
from tlkit.predict.shared import groups
from tlkit.train.bank import Bank, Extractor, extractor, hang_on_rounding
from tlkit.train.events import Event, Note
from tlkit.train.recipe import plan_of, settle

CLASSES = 2
"""Of the head that is built and not used."""

IN_BLOCK = 1 << 22
"""Numbers of vectors that are scored at once: 16 MiB."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What heads make of N photos that could be read."""

    bank: Bank
    """The vectors in front of the first head, (N, D)."""
    probabilities: NDArray[np.float32]
    """(N, C), calibrated; the mean over the heads."""
    familiarity: NDArray[np.float32] | None
    """(N,) the share of the validation images that were less like what was learnt from; None where
    a head does not know."""


def photos(paths: Sequence[Path], *, once: bool = True) -> Catalog:
    """List the photos that paths and folders mean, folders searched to every depth, as one class.

    With `once` a photo that is named twice is listed once: a pool to search or to choose from is a
    set. Raises `FolderError`.
    """
    found = find_images(paths)
    names, root = found.names, Path()
    if once and len(paths) > 1:
        names = Names.of(dict.fromkeys(names))
    if len(paths) == 1 and paths[0].is_dir():
        # Below a root, digests are kept from question to question.
        root = paths[0]
        before = len(os.fsencode(os.path.join(str(root), ""))) if root != Path() else 0
        names = Names(names.data, names.begins + before, names.ends)
    return Catalog(root=root, classes=("",), files=names, labels=np.zeros(len(names), np.int64))


def fill(runs: Extractor, catalog: Catalog, *, what: str) -> Generator[Event, None, Bank]:
    """The plain view of each photo; those that cannot be read are in `bad`.

    Raises `ImageError` where none can be.
    """
    plain = augmentation("none", runs.cut.model.spec, FitOptions().seed)
    return (yield from runs.fill(catalog, plain, views=1, what=what))


def extractor_by(options: Checked, images: int) -> Extractor:
    """What runs the frozen part over so many images, as a fit with these options would.

    `options` have fields of `FitOptions`. Raises `TlkitError`.
    """
    fit = options.narrowed(FitOptions)
    backbone = choose(fit.backbone).backbone
    fit = settle(fit, weight_sets(backbone))
    compute = compute_on(fit.device, fit.precision, fit.layout)
    cut = build(backbone, plan_of(fit), CLASSES).cut
    if not cut.has_bank:
        raise OptionError(
            "nothing is frozen, so there are no features",
            found=f"--freeze {fit.freeze}, --weights {fit.weights}",
            expected="a part of the backbone that is not trained",
            do="use --freeze features, backbone or to:STAGE",
        )
    compute.place(cut.model)
    return extractor(
        cut,
        compute,
        backbone=fit.backbone,
        engine=fit.engine,
        images=images,
        workers=fit.workers,
    )


def extractor_of(head: Head, options: Checked, images: int) -> tuple[Extractor, Compute]:
    """What gives the vectors in front of a head, whatever of its network was trained.

    `options` say device, engine and workers. Of a head on frozen features that was fitted in fp32
    these are the very rows that its fit has read. Raises `OptionError`.
    """
    fit = options.narrowed(FitOptions)
    compute = compute_for_answers(fit.device, fitted=head.card.precision, layout=fit.layout)
    model = head.model
    compute.place(model.eval())
    parts = [part for _, part in model.parts()]
    cut = Cut(
        model=model,
        frozen=nn.Sequential(*parts[:-1]),
        trained=nn.Sequential(parts[-1]),
        still=(),
        at="head",
    )
    runs = extractor(
        cut,
        compute,
        backbone=head.card.backbone,
        engine=fit.engine,
        images=images,
        workers=fit.workers,
    )
    runs.whose = f"the network of the head {head.path}"
    temperature = head.card.calibration.temperature
    runs.scores = lambda rows: compute.infer(head.model.head, rows).cpu() / temperature
    return runs, compute


def scored(
    heads: Sequence[Head], catalog: Catalog, options: Checked
) -> Generator[Event, None, Scored]:
    """What heads, at least one, make of the photos.

    Raises `OptionError` for heads that do not read the same vectors, `HeadFileError` for heads of
    different classes, `ImageError` where no photo can be read.
    """
    orders = match(heads)
    _refuse_apart(heads)
    runs, compute = extractor_of(heads[0], options, len(catalog))
    bank = yield from fill(runs, catalog, what="features")
    answers = [_answers(one, compute, bank) for one in heads]
    rows = [one.probabilities[:, order] for one, order in zip(answers, orders, strict=True)]
    likes = [one.familiarity for one in answers if one.familiarity is not None]
    known = len(likes) == len(heads)
    probabilities = np.asarray(sum(rows) / len(heads), np.float32)
    again = np.unique(np.concatenate([one.again for one in answers]))
    if len(again):
        yield Note(
            text=f"{len(again)} photos are looked at anew: what is kept of them is too coarse for "
            "the probabilities of this head"
        )
        probabilities[again] = _anew(heads, bank.catalog.paths.take(again), options)
    return Scored(
        bank=bank,
        probabilities=probabilities,
        familiarity=np.mean(likes, axis=0, dtype=np.float32) if known else None,
    )


def _anew(heads: Sequence[Head], paths: Paths, options: Checked) -> NDArray[np.float64]:
    """(n, C) of photos that were read before, as `predict` gives them.

    Raises `ImageError` for those that cannot be read any more.
    """
    asked = options.narrowed(FitOptions)
    looking = PredictOptions(device=asked.device, engine=asked.engine, workers=asked.workers)
    rows = []
    for answer in members(heads, paths, looking):
        if isinstance(answer, BadImage):
            refuse([answer], do="put it back: it was readable a moment ago")
            continue
        rows.append(np.mean([one.probabilities for one in answer], axis=0))
    return np.stack(rows)


def _refuse_apart(heads: Sequence[Head]) -> None:
    """Raise `OptionError` unless all heads read the same vectors, as those of folds do."""
    if len(heads) == 1:
        return
    if len(groups(heads)) > 1 or not all(one.cut and one.cut.head_only for one in heads):
        raise OptionError(
            "heads that see photos by different features cannot be asked together",
            found=listing([str(one.path) for one in heads]),
            expected="one head, or several on one and the same frozen part",
            do="name one of them",
        )


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """What one head makes of the N rows of a bank."""

    probabilities: NDArray[np.float64]
    """(N, C), calibrated."""
    familiarity: NDArray[np.float64] | None
    """(N,) how familiar each photo is, where it is known."""
    again: NDArray[np.int64]
    """Rows that are too coarse for it."""


def _answers(head: Head, compute: Compute, bank: Bank) -> _Answers:
    """Ask a head about the rows of a bank."""
    compute.place(head.model.head.eval())
    familiar = head.model.familiar
    if familiar is not None:
        compute.place(familiar)

    def soft(vectors: Tensor, images: Sequence[Path] = ()) -> Tensor:
        return probabilities_of(head, compute.infer(head.model.head, vectors).cpu(), images)

    rows, likes, again = [], [], []
    places = np.arange(len(bank.labels))
    step = max(1, IN_BLOCK // math.prod(bank.shape))
    for part in np.split(places, range(step, len(places), step)):
        vectors = bank.at(part, 0)
        images = bank.catalog.paths.take(part)
        rows.append(soft(vectors, images))
        again.append(part[hang_on_rounding(soft, vectors)])
        if familiar is not None:
            similarities = compute.infer(familiar, vectors).cpu()
            check_scores(similarities, head.path, images)
            likes.append(similarities.double())
    shares = None
    if likes:
        every = torch.cat(likes).numpy()
        shares = np.array([familiarity(head.card.calibration, one) for one in every])
    return _Answers(
        probabilities=torch.cat(rows).numpy(), familiarity=shares, again=np.concatenate(again)
    )
