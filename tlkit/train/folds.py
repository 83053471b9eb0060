"""Folds: one head for each fold of a cross-validation, on one bank where a bank will do.

In: the options, a chosen backbone, `Splits` that share out the same images. Out: events, and a
`Fold` for each, whose tensors the model holds until the next is asked for.
The frozen part is run once over all images; each fold takes its rows, and nothing that is fitted
(the scale, the class weights, the head) sees the others. What is trained through the pixels is
trained from the start for every fold.
Next door: run.py (one head), tlkit/folds.py (what is left of it all).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.artifact import tensors_of
from tlkit.backbone import Backbone
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage
from tlkit.data.split import Splits
from tlkit.data.transforms import augmentation
from tlkit.model.assemble import Cut
from tlkit.model.build import build, weight_sets
from tlkit.model.device import Compute, compute_on
from tlkit.options import FitOptions
from tlkit.steps import passed
from tlkit.train.bank import Bank, none_readable
from tlkit.train.checkpoint import Checkpoints
from tlkit.train.cross import class_weights_for
from tlkit.train.events import Epoch, Event, Note, Tick
from tlkit.train.feeds import readable
from tlkit.train.judge import Verdict, bank_logits, best_in_words, probabilities, standing
from tlkit.train.probe import solve, threads_for
from tlkit.train.recipe import plan_of, settle
from tlkit.train.run import (
    Course,
    Phase,
    Tested,
    Trained,
    about_bad,
    bank_course,
    bank_tested,
    decisions,
    extractor_for,
    familiarise,
    keep_best,
    keeper_of,
    prepare,
    refuse_gone,
    train,
    views_computed,
    views_kept,
)
from tlkit.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A trained fold. `trained.cut` holds its tensors until the next fold is asked for."""

    number: int
    """From 1."""
    of: int
    trained: Trained
    files: tuple[str, ...]
    """The images that judged it and could be read, as the catalog names them, in the order of
    `trained.val_probabilities`."""
    bad: tuple[BadImage, ...]
    """Unreadable images of all folds and of the test part."""

    @property
    def test(self) -> Tested | None:
        """What its head makes of the test part."""
        return self.trained.test


def train_folds(
    options: FitOptions,
    backbone: Backbone,
    folds: Sequence[Splits],
    whole: Catalog,
    *,
    checkpoints: Checkpoints | None = None,
) -> Generator[Event | Fold, None, None]:
    """Train a head for each of `folds`, which share out the images of `whole`.

    With `checkpoints` each fold's training can be interrupted. Raises every `TlkitError` that a fit
    raises. No head is refitted: it stays as it was judged.
    """
    # Refitted on all images, the heads would be one, and judged by what they learnt.
    options = replace(options, refit=False)
    settled = settle(options, weight_sets(backbone))
    if settled.freeze != "none" and settled.strategy != "probe+finetune":
        built = build(backbone, plan_of(settled), len(whole.classes))
        if built.cut.has_bank:
            yield from _together(settled, built.cut, built.weights, folds, whole, checkpoints)
            return
        del built
    yield from _one_by_one(options, backbone, folds, whole, checkpoints)


def _name(number: int) -> str:
    """Of a fold's training, for its checkpoints."""
    return f"fold-{number}"


def _one_by_one(
    options: FitOptions,
    backbone: Backbone,
    folds: Sequence[Splits],
    whole: Catalog,
    checkpoints: Checkpoints | None,
) -> Generator[Event | Fold, None, None]:
    """A fit of its own for every fold."""
    # Everything is read once before hours are spent: the last fold must not end what is done.
    good, bad = yield from readable(whole, workers=options.workers)
    test, test_bad = folds[0].test, tuple[BadImage, ...]()
    if test is not None:
        test, test_bad = yield from readable(test, workers=options.workers)
    yield from about_bad(options, bad + test_bad)
    folds = [replace(_only(splits, set(good.files), bad), test=test) for splits in folds]
    told: set[str] = set()
    for number, splits in enumerate(folds, start=1):
        events = train(options, backbone, splits, checkpoints=checkpoints, name=_name(number))
        trained = yield from _told_once(events, told, f"fold {number} of {len(folds)}")
        yield Fold(
            number=number,
            of=len(folds),
            trained=replace(trained, bad=bad),
            files=tuple(splits.val.files),
            bad=bad + test_bad,
        )
        # Before the next network is built: two need not fit into memory.
        del trained


def _only(splits: Splits, good: Set[str], bad: tuple[BadImage, ...]) -> Splits:
    """The split without the unreadable images. Raises `ImageError` for a side left empty."""

    def readable_of(catalog: Catalog) -> Catalog:
        kept = np.array([i for i, one in enumerate(catalog.files) if one in good], np.int64)
        if not len(kept):
            raise none_readable(bad)
        return catalog.take(kept)

    train, val = readable_of(splits.train), readable_of(splits.val)
    only = replace(splits, train=train, val=val, checked=True)
    refuse_gone(only, torch.from_numpy(only.train.labels))
    return only


def _told_once(
    events: Generator[Event, None, Trained], told: set[str], where: str
) -> Generator[Event, None, Trained]:
    """The same events; a note that another fold had too is not repeated."""

    def once(event: Event) -> Iterator[Event]:
        if isinstance(event, Note):
            if event.text in told:
                return
            told.add(event.text)
        yield replace(event, what=f"{where}, {event.what}") if isinstance(event, Tick) else event

    return passed(events, once)


@dataclass(frozen=True, kw_only=True)
class _Banks:
    """What the frozen part makes of every image, for all folds."""

    views: Bank
    """To learn from."""
    plain: Bank
    """To be judged by; the same bank where its first views are the plain ones."""
    test: Bank | None
    rows: Mapping[str, int]
    """File -> row, of the images that could be read."""
    bad: tuple[BadImage, ...]
    """In the training images."""

    def read(self, catalog: Catalog) -> list[str]:
        """The files of a catalog that could be read."""
        return [one for one in catalog.files if one in self.rows]

    def learn(self, catalog: Catalog) -> Bank:
        """A catalog's rows, all views."""
        return self.views.take(self._rows(catalog), views=self.views.views)

    def judge(self, catalog: Catalog) -> Bank:
        """A catalog's rows, the plain view."""
        return self.plain.take(self._rows(catalog), views=1)

    def _rows(self, catalog: Catalog) -> NDArray[np.int64]:
        rows = [self.rows[one] for one in self.read(catalog)]
        if not rows:
            raise none_readable(self.bad)
        return np.array(rows, dtype=np.int64)


def _fill(
    phase: Phase, compute: Compute, whole: Catalog, test: Catalog | None
) -> Generator[Event, None, _Banks]:
    """Run the frozen part once over everything."""
    options, cut = phase.options, phase.cut
    plain = augmentation("none", cut.model.spec, options.seed)
    kept_views = views_kept(options, phase.augment)
    images = views_computed(kept_views, phase.augment, whole, test)
    runs = extractor_for(options, cut, compute, images)
    views = yield from runs.fill(whole, phase.augment, views=kept_views, what="features")
    first = views
    if phase.augment.distinct is None:
        first = yield from runs.fill(whole, plain, views=1, what="features, plain")
    tested = None
    if test is not None:
        tested = yield from runs.fill(test, plain, views=1, what="features, test")
    yield from about_bad(options, views.bad + (tested.bad if tested is not None else ()))
    gone = {one.path for one in views.bad}
    kept = [one for one, path in zip(whole.files, whole.paths, strict=True) if path not in gone]
    return _Banks(
        views=views,
        plain=first,
        test=tested,
        rows={one: row for row, one in enumerate(kept)},
        bad=views.bad,
    )


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What all folds have in common."""

    phase: Phase
    compute: Compute
    weights: Weights
    folds: Sequence[Splits]
    banks: _Banks
    begin: Mapping[str, Tensor]
    """The trained tensors before any training: every fold begins with these."""

    @property
    def cut(self) -> Cut:
        return self.phase.cut

    @property
    def classes(self) -> int:
        return len(self.folds[0].train.classes)

    def course(self, splits: Splits) -> Course:
        """The model as it was at first, and the fold's rows."""
        self.put(self.begin)
        train, val = self.banks.learn(splits.train), self.banks.judge(splits.val)
        refuse_gone(splits, train.labels)
        with self.threads(train):
            return bank_course(
                self.phase.options,
                self.cut,
                self.compute,
                (train, val),
                test=None,
                classes=self.classes,
            )

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the model hold the tensors of a training, and nothing of another fold."""
        self.cut.model.familiar = None
        self.cut.put(tensors)

    def fold(self, number: int, history: Sequence[Epoch], best: Epoch) -> Fold:
        """The fold whose tensors the model holds."""
        splits, banks = self.folds[number - 1], self.banks
        val = banks.judge(splits.val)
        judged = self.probabilities(val)
        test = None
        if banks.test is not None:
            with self.threads(banks.test):
                test = bank_tested(self.cut, self.compute, banks.test)
        trained = Trained(
            options=self.phase.options,
            cut=self.cut,
            compute=self.compute,
            weights=self.weights,
            recipe=self.phase.recipe,
            history=tuple(history),
            best=best,
            train_images=len(banks.read(splits.train)),
            crossed=False,
            val_files=tuple(banks.read(splits.val)),
            val_labels=val.labels.numpy(),
            val_probabilities=judged,
            unseen=Tested(labels=val.labels.numpy(), probabilities=judged, bad=()),
            test=test,
            bad=banks.bad,
            val_similarities=familiarise(
                self.cut, self.compute, banks.learn(splits.train), val, seed=self.phase.options.seed
            ),
        )
        return Fold(
            number=number,
            of=len(self.folds),
            trained=trained,
            files=tuple(banks.read(splits.val)),
            bad=banks.bad + (() if test is None else test.bad),
        )

    def probabilities(self, bank: Bank) -> NDArray[np.float64]:
        """(N, C) of a bank's first views, by the model as it is now."""
        with self.threads(bank):
            return probabilities(bank_logits(self.cut, self.compute, bank))

    def threads(self, bank: Bank) -> AbstractContextManager[None]:
        """One thread where nothing but a small head is run."""
        head_only = self.cut.head_only
        return threads_for(bank.numbers * self.classes) if head_only else nullcontext()


def _together(
    options: FitOptions,
    cut: Cut,
    weights: Weights,
    folds: Sequence[Splits],
    whole: Catalog,
    checkpoints: Checkpoints | None,
) -> Generator[Event | Fold, None, None]:
    """All folds on one bank."""
    compute = compute_on(options.device, options.precision, options.layout)
    largest = max(folds, key=lambda one: len(one.train))
    phase = prepare(options, cut, largest, scratch=weights.state is None)
    compute.place(cut.model)
    yield from decisions(phase)
    banks = yield from _fill(phase, compute, whole, folds[0].test)
    shared = _Shared(
        phase=phase, compute=compute, weights=weights, folds=folds, banks=banks,
        begin=tensors_of(cut),
    )  # fmt: skip
    if phase.recipe.optimizer == "lbfgs":
        yield from _solved(shared)
        return
    for number, splits in enumerate(folds, start=1):
        keeper = None
        if checkpoints is not None:
            keeper = yield from keeper_of(checkpoints, _name(number))
        history, best = yield from keep_best(phase, compute, shared.course(splits), None, keeper)
        yield shared.fold(number, history, best)


def _solved(shared: _Shared) -> Iterator[Event | Fold]:
    """Every fold for every penalty; then the penalty that is best on average, for all of them."""
    paths = []
    for number, splits in enumerate(shared.folds, start=1):
        paths.append(_path(shared.phase, shared.compute, shared.course(splits)))
        yield from (record for record, _ in paths[-1])
        yield Tick(what="solving", done=number, total=len(shared.folds))
    histories = [[record for record, _ in path] for path in paths]
    place = _common(histories, shared.phase.options.monitor)
    monitor = shared.phase.options.monitor
    by = best_in_words(_mean([history[place] for history in histories]), monitor)
    yield Note(
        text=f"penalty {histories[0][place].rate:.2g} for all folds, by {by}, on average over folds"
    )
    for number, path in enumerate(paths, start=1):
        shared.put(path[place][1])
        yield shared.fold(number, histories[number - 1], path[place][0])


def _path(phase: Phase, compute: Compute, course: Course) -> list[tuple[Epoch, dict[str, Tensor]]]:
    """Every penalty's scores and tensors."""
    if course.banks is None:
        raise RuntimeError("unreachable: a head is solved on banks")
    records = solve(
        phase.cut, compute, course.banks[0], course.judge,
        path=phase.options.epochs,
        class_weights=class_weights_for(phase.options, compute, course.train_labels),
        smoothing=phase.options.label_smoothing,
    )  # fmt: skip
    # Asked for once: looking for them takes longer than a penalty.
    live = phase.cut.trained_tensors()
    return [
        (record, {name: one.detach().cpu().clone() for name, one in live.items()})
        for record in records
    ]


def _common(paths: Sequence[Sequence[Epoch]], monitor: str) -> int:
    """The place on the path that is the best on average over the folds.

    One for all, as in scikit-learn's LogisticRegressionCV: chosen by each fold for itself, the
    scores of the folds would be those of their luckiest penalty.
    """

    def rank(place: int) -> tuple[float, ...]:
        return standing(_mean([path[place] for path in paths]), monitor)

    return min(range(len(paths[0])), key=rank)


def _mean(epochs: Sequence[Epoch]) -> Verdict:
    """Return the mean scores of one penalty over the folds."""
    return Verdict(
        loss=float(np.mean([epoch.val_loss for epoch in epochs])),
        accuracy=float(np.mean([epoch.val_accuracy for epoch in epochs])),
        balanced_accuracy=float(np.mean([epoch.val_balanced_accuracy for epoch in epochs])),
    )
