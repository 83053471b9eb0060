"""Folds: what a cross-validation leaves, and how its scores are put together.

In: the folds' evaluations and probabilities (train/folds.py). Out: a `FoldsResult`, and its files:
folds.csv, out-of-fold.csv, metrics.json, confusion.png. Next door: runs.py (all of a run folder).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import artifact, runs
from tlkit.card import Calibration, Card, now
from tlkit.data.images import BadImage
from tlkit.files import write_bytes, write_text
from tlkit.metrics import Evaluation, measure
from tlkit.report.plots import confusion
from tlkit.train.events import Epoch, FoldScore
from tlkit.train.folds import Fold
from tlkit.train.run import Tested
from tlkit.weights import digest

SCORES = ("accuracy", "balanced_accuracy", "loss")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One score over the folds."""

    mean: float
    std: float
    """Standard deviation of the folds' scores (their number less one below)."""
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """One head, and the images that it did not learn from."""

    number: int
    """From 1."""
    head: Path
    card: Card
    history: tuple[Epoch, ...]
    best: Epoch
    """The epoch, or the penalty, that was kept."""
    files: tuple[str, ...]
    """The images that judged it, as the folder names them."""
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    """(N, C), by this head, of the images that judged it."""
    validation: Evaluation
    test: Evaluation | None
    """This head alone on the folder's test part."""


@dataclass(frozen=True, kw_only=True)
class FoldsResult:
    """What a cross-validation has left."""

    run: Path
    """The run folder (tlkit/runs.py tells what is in it)."""
    folds: tuple[FoldResult, ...]
    out_of_fold: Evaluation
    """Every image, as predicted by the head that did not learn from it."""
    test: Evaluation | None
    """The folder's own test part by all heads together: their mean probabilities."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""
    wall_s: float

    @property
    def heads(self) -> tuple[Path, ...]:
        """K head files."""
        return tuple(one.head for one in self.folds)

    @property
    def card(self) -> Card:
        """The first head's: what all have in common stands in it."""
        return self.folds[0].card

    @property
    def spread(self) -> Mapping[str, Spread]:
        """accuracy, balanced_accuracy and loss over the folds, each on its own images."""
        return spread([one.validation for one in self.folds])

    @property
    def test_spread(self) -> Mapping[str, Spread] | None:
        """The same of the single heads on the test part; None where there is none."""
        tested = [one.test for one in self.folds if one.test is not None]
        return spread(tested) if tested else None


def spread(evaluations: Sequence[Evaluation]) -> dict[str, Spread]:
    """Mean, deviation and range of each of `SCORES`."""
    result = {}
    for name in SCORES:
        values = [float(getattr(one, name)) for one in evaluations]
        result[name] = Spread(
            mean=statistics.fmean(values),
            std=statistics.stdev(values),
            min=min(values),
            max=max(values),
        )
    return result


def pooled(folds: Sequence[FoldResult]) -> Evaluation:
    """All folds' images, each by the head that did not learn from it."""
    labels = np.concatenate([one.labels for one in folds])
    return measure(labels, np.concatenate([one.probabilities for one in folds]), _classes(folds))


def together(tested: Sequence[Tested], classes: Sequence[str]) -> Evaluation | None:
    """All heads' mean of the probabilities (T, C) of the same images; None without a test part."""
    if not tested:
        return None
    mean: NDArray[np.float64] = np.mean([one.probabilities for one in tested], axis=0)
    return measure(tested[0].labels, mean, classes)


def fold_card(card: Card, fold: Fold, validation: Evaluation, calibration: Calibration) -> Card:
    """A fold's card: that of another fold, with what is this one's own."""
    trained = fold.trained
    return replace(
        card,
        created=now(),
        images={**card.images, "train": trained.train_images, "val": validation.images},
        metrics={
            "validation": validation.in_card(),
            "best_epoch": trained.best.number,
            "fold": {"number": fold.number, "of": fold.of},
        },
        calibration=calibration,
        tensors_sha256=digest(artifact.tensors_of(trained.cut).items()),
    )


def fold_result(fold: Fold, card: Card, validation: Evaluation, run: Path) -> FoldResult:
    """What is kept of a fold when the model holds another's tensors."""
    test = fold.test
    return FoldResult(
        number=fold.number,
        head=runs.fold_head(run, fold.number),
        card=card,
        history=fold.trained.history,
        best=fold.trained.best,
        files=fold.files,
        labels=fold.trained.val_labels,
        probabilities=fold.trained.val_probabilities,
        validation=validation,
        test=None if test is None else measure(test.labels, test.probabilities, card.classes),
    )


def score_of(fold: Fold, validation: Evaluation) -> FoldScore:
    """The event that tells of it."""
    return FoldScore(
        number=fold.number,
        of=fold.of,
        images=validation.images,
        accuracy=validation.accuracy,
        balanced_accuracy=validation.balanced_accuracy,
        loss=validation.loss,
        kept=fold.trained.best,
    )


def write_scores(staged: Path, result: FoldsResult) -> None:
    """The tables, the numbers and the picture, into a run folder that is being written."""
    write_text(staged / runs.FOLDS, folds_csv(result.folds))
    write_text(staged / runs.OUT_OF_FOLD, out_of_fold_csv(result.folds))
    write_text(staged / "metrics.json", runs.as_json(scores(result)))
    write_confusions(staged, {"out_of_fold": result.out_of_fold, "test": result.test})
    shown = confusion(result.out_of_fold.confusion, _classes(result.folds))
    write_bytes(staged / "confusion.png", shown)


def write_confusions(staged: Path, named: Mapping[str, Evaluation | None]) -> None:
    """Write every cell that is not empty, of matrices too large for metrics.json."""
    rows = [
        [part, evaluation.classes[i].name, evaluation.classes[j].name, images]
        for part, evaluation in named.items()
        if evaluation is not None and evaluation.is_large
        for i, j, images in evaluation.cells()
    ]
    if rows:
        write_text(
            staged / runs.CONFUSION, runs.as_csv(["part", "class", "predicted", "images"], rows)
        )


def scores(result: FoldsResult) -> dict[str, Any]:
    """As JSON takes it."""
    tested = result.test_spread
    return {
        "folds": len(result.folds),
        "skipped_images": len(result.bad),
        "over_folds": {name: asdict(one) for name, one in result.spread.items()},
        "out_of_fold": result.out_of_fold.plain(),
        "test": None if result.test is None else result.test.plain(),
        "test_over_folds": None
        if tested is None
        else {name: asdict(one) for name, one in tested.items()},
    }


def folds_csv(folds: Sequence[FoldResult]) -> str:
    """One row per fold; `penalty` where the head was solved, else `epoch`."""
    tested = folds[0].test is not None
    header = ["fold", "learnt_from", "images", *SCORES, "epoch", "penalty"]
    header += [f"test_{name}" for name in SCORES] if tested else []
    rows = []
    for one in folds:
        solved = one.card.options["optimizer"] == "lbfgs"
        rows.append(
            [one.number, one.card.images["train"], one.validation.images]
            + [getattr(one.validation, name) for name in SCORES]
            + (["", one.best.rate] if solved else [one.best.number, ""])
            + ([getattr(one.test, name) for name in SCORES] if tested else [])
        )
    return runs.as_csv(header, rows)


def out_of_fold_csv(folds: Sequence[FoldResult]) -> str:
    """One row per image, in the order of their names: path, class, fold, C probabilities."""
    classes = _classes(folds)
    header = ["path", "class", "fold", *(f"probability_{name}" for name in classes)]
    rows = [
        [file, classes[label], one.number, *(float(value) for value in row)]
        for one in folds
        for file, label, row in zip(one.files, one.labels, one.probabilities, strict=True)
    ]
    return runs.as_csv(header, sorted(rows))


def _classes(folds: Sequence[FoldResult]) -> tuple[str, ...]:
    return folds[0].card.classes
