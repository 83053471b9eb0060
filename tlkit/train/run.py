"""Run: a whole fit, from splits to a trained model, as a stream of events.

In: the options, a chosen backbone, `Splits`. Out: events, and at the end a `Trained`.
Nothing is written here: the run folder is the caller's (tlkit/fitting.py).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.backbone import Backbone
from tlkit.data.folder import Catalog
from tlkit.data.geometry import detail
from tlkit.data.images import BadImage, refuse
from tlkit.data.pixels import Decoded, Room
from tlkit.data.split import Splits
from tlkit.data.transforms import Augmentation, augmentation
from tlkit.errors import FolderError, OptionError, TrainingError, listing
from tlkit.model.assemble import Cut
from tlkit.model.assemble import cut as recut
from tlkit.model.build import build, weight_sets
from tlkit.model.device import Compute, compute_on
from tlkit.model.familiar import familiar_with
from tlkit.model.heads import Scale
from tlkit.options import FitOptions
from tlkit.ranks import here
from tlkit.train.bank import Bank, Extractor, extractor
from tlkit.train.best import Best, Kept
from tlkit.train.checkpoint import Checkpoints, Keeper
from tlkit.train.cross import (
    FEW,
    PARTS,
    USUAL,
    class_weights_for,
    cross,
    crossed_with,
    likenesses,
    solve_on,
)
from tlkit.train.events import Epoch, Event, Note
from tlkit.train.feeds import BankFeed, Feed, ImageFeed, readable
from tlkit.train.judge import (
    Verdict,
    bank_logits,
    image_logits,
    probabilities,
    verdict,
)
from tlkit.train.loop import Loss, diverged, epochs, loss_for
from tlkit.train.optimizer import optimizer_for
from tlkit.train.probe import solve
from tlkit.train.recipe import (
    Recipe,
    for_steps,
    for_the_probe,
    plan_of,
    rates_in_words,
    recipe_for,
    refuse_idle,
    refuse_idle_processes,
    refuse_lone_images,
    settle,
)
from tlkit.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What a head makes of the test part."""

    labels: NDArray[np.int64]
    """(T,) of the images that could be read."""
    probabilities: NDArray[np.float64]
    """(T, C)"""
    bad: tuple[BadImage, ...]
    """Unreadable images."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with what is known of its training."""

    options: FitOptions
    """With what shapes the network decided (`recipe.settle`)."""
    cut: Cut
    compute: Compute
    weights: Weights
    recipe: Recipe
    history: tuple[Epoch, ...]
    best: Epoch
    """The epoch with the best `monitor`; the model holds its tensors, or the refit's."""
    train_images: int
    crossed: bool
    """Whether nothing was held out: the validation images are those that were learnt from, each
    judged by a head that did not learn from it."""
    val_files: tuple[str, ...]
    """The validation images that could be read; none where no class has two images."""
    val_labels: NDArray[np.int64]
    val_probabilities: NDArray[np.float64]
    """(N, C), the best epoch's on these, before any refit."""
    unseen: Tested
    """The validation images, and of a solved head the training images too, each by a head that did
    not learn from it: what probabilities are calibrated on."""
    test: Tested | None
    """Of the head that is kept; None where the folder has no test part."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out of training and validation."""
    engine: str = ""
    """What the frozen part of each image came from; empty where there is none."""
    val_similarities: NDArray[np.float64] | None = None
    """(N,) how near each validation image is to what was learnt from; None where the backbone was
    trained too."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What an epoch needs, whether it comes from a bank or from images."""

    feed: Feed
    train_labels: Tensor
    val_labels: Tensor
    val_files: tuple[str, ...]
    classes: int
    val_logits: Callable[[], Tensor]
    """(N, C) of the model as it is now."""
    test: Callable[[], Tested] | None
    """Of the model as it is now."""
    bad: tuple[BadImage, ...]
    banks: tuple[Bank, Bank] | None
    """Training and validation, where there are banks."""
    crossed: bool = False
    """Whether nothing is held out: the banks are of the same images, in all views and plain."""
    engine: str = ""
    """What has filled them."""

    def judge(self) -> Verdict:
        """How good the model is now; to all processes alike, for they go on by it."""
        return here().agree(verdict(self.val_logits(), self.val_labels))


def train(
    options: FitOptions,
    backbone: Backbone,
    splits: Splits,
    *,
    checkpoints: Checkpoints | None = None,
    name: str = "last",
) -> Generator[Event, None, Trained]:
    """Fit a head. Yields events, returns the result.

    With `checkpoints` its last training, called `name` there, can be interrupted. Raises every
    `TlkitError`; a folder with unreadable images is refused unless `on_bad` is `skip`.
    """
    keeper = None
    if checkpoints is not None:
        keeper = yield from keeper_of(checkpoints, name)
    begun = yield from _begin(options, backbone, splits, keeper)
    options, last, compute = begun.last.options, begun.last, begun.compute
    course = yield from _read(last, compute, splits)
    learnt = yield from trained(last, compute, course, begun.start, keeper)
    return Trained(
        options=options,
        cut=last.cut,
        compute=compute,
        weights=begun.weights,
        recipe=last.recipe,
        history=learnt.history,
        best=learnt.best,
        train_images=len(course.train_labels),
        crossed=course.crossed,
        val_files=tuple(course.val_files[place] for place in learnt.index),
        val_labels=learnt.judged.labels,
        val_probabilities=learnt.judged.probabilities,
        unseen=learnt.unseen,
        test=None if course.test is None else course.test(),
        bad=course.bad,
        engine=course.engine,
        val_similarities=_similarities(last, compute, course, learnt.index),
    )


def keeper_of(checkpoints: Checkpoints, name: str) -> Generator[Note, None, Keeper]:
    """Read the checkpoints of a training, and say which of them are damaged."""
    keeper = checkpoints.of(name)
    for note in keeper.notes:
        yield Note(text=note)
    return keeper


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a training has come to. The model holds the head that is kept."""

    history: tuple[Epoch, ...]
    best: Epoch
    index: NDArray[np.int64]
    """(M,) places of the course's validation images that were judged."""
    judged: Tested
    """These, by a head that did not learn from them: they have chosen."""
    unseen: Tested
    """All images that are known from a head that did not learn from them."""


def trained(
    phase: Phase,
    compute: Compute,
    course: Course,
    start: Epoch | None = None,
    keeper: Keeper | None = None,
) -> Generator[Event, None, Learnt]:
    """Train on a course, and let a solved head learn from all images that it may learn from."""
    if course.banks is not None and course.crossed:
        return (yield from _learn_all(phase, compute, *course.banks))
    history, best = yield from keep_best(phase, compute, course, start, keeper)
    labels = course.val_labels.numpy()
    judged = Tested(labels=labels, probabilities=probabilities(course.val_logits()), bad=())
    unseen = _unseen(phase, compute, course, best, judged)
    if phase.recipe.refit:
        yield from refit(phase.options, phase.cut, compute, course, best)
    every = np.arange(len(labels))
    return Learnt(history=tuple(history), best=best, index=every, judged=judged, unseen=unseen)


def _learn_all(
    phase: Phase, compute: Compute, bank: Bank, plain: Bank
) -> Generator[Event, None, Learnt]:
    """Solve the head on all images, with the penalty that they choose among themselves."""
    options, cut = phase.options, phase.cut
    found = yield from cross(options, cut, compute, bank, plain)
    judged = Tested(
        labels=plain.labels.numpy()[found.index], probabilities=found.probabilities, bad=()
    )
    count, total = len(found.index), len(plain.labels)
    yield Note(
        text=f"penalty {found.best.rate:.2g}: chosen by {PARTS} heads, each judged by images that "
        f"it did not learn from, {count} in all, and by a prior that favours penalties near "
        f"{USUAL:g}; the head that is kept learnt from all {total}"
        if count
        else f"penalty {found.best.rate:.2g}, the usual one: with one image of each class there "
        "is nothing to choose or to judge by; only a test part could say how good the head is"
    )
    return Learnt(
        history=found.history, best=found.best, index=found.index, judged=judged, unseen=judged
    )


ENOUGH = 1000
"""Images that tell how sure a head may be: where there are more of them, no others are needed."""


def _unseen(phase: Phase, compute: Compute, course: Course, best: Epoch, judged: Tested) -> Tested:
    """Images with what a head makes of them that did not learn from them.

    The validation images have chosen the penalty and flatter it; where they are few and the head is
    solved at once, the training images tell more: cross-validated with that penalty.
    """
    if course.banks is None or not _worth_crossing(phase, course):
        return judged
    labels, rows = crossed_with(phase.options, phase.cut, compute, course.banks[0], best.rate)
    return Tested(
        labels=np.concatenate([judged.labels, labels]),
        probabilities=np.concatenate([judged.probabilities, rows]),
        bad=(),
    )


def _worth_crossing(phase: Phase, course: Course) -> bool:
    """Whether training images are to be judged too, by heads that are solved without them."""
    few = len(course.val_labels) < ENOUGH and len(course.train_labels) <= PARTS * ENOUGH
    # Images of one group would be learnt from and judged by.
    return few and phase.recipe.optimizer == "lbfgs" and not phase.options.group_by


def holds_none_out(phase: Phase, whole: Catalog | None, val: Catalog) -> bool:
    """Whether the head is to learn from all of `whole`, of which `val` would be held out.

    Where images are few a part of them chooses badly; where no class has two there is no part.
    """
    if whole is None or not phase.recipe.refit or phase.options.group_by:
        return False
    return len(whole) <= FEW or not len(val)


def refuse_unjudged(phase: Phase, whole: Catalog | None, val: Catalog) -> None:
    """Raise `FolderError` where an epoch is to be chosen and there is no image to choose by."""
    if len(val) or holds_none_out(phase, whole, val):
        return
    raise FolderError(
        "there is nothing to hold out",
        found="one image of each class",
        expected="at least 2 images of a class: one to learn from, one to judge by; a linear head "
        "on frozen features can do without",
        do="add images, or leave out what trains more, or keeps a share held out",
    )


def _similarities(
    phase: Phase, compute: Compute, course: Course, index: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """(M,) of the images that were judged; see `familiarise`, which is done."""
    if course.banks is None or not len(index):
        return None
    learn, plain = course.banks
    found = familiarise(phase.cut, compute, learn, plain, seed=phase.options.seed)
    # Of images that were learnt from, it says too much.
    return likenesses(learn, plain, index, seed=phase.options.seed) if course.crossed else found


def familiarise(
    cut: Cut, compute: Compute, train: Bank, val: Bank, *, seed: int
) -> NDArray[np.float64] | None:
    """Let the model tell what is like the images of a bank from what is not.

    Returns how like them each validation image is; None, and nothing done, where what the bank
    holds is not what the head sees: the layers between are trained.
    """
    if not cut.head_only:
        return None
    familiar = familiar_with(lambda places: train.at(places, 0), train.labels.numpy(), seed=seed)
    found = [familiar(block) for block in val.blocks()]
    compute.place(familiar)
    cut.model.familiar = familiar
    return torch.cat(found).double().numpy()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training of a part of the model, decided and checked but not begun."""

    options: FitOptions
    cut: Cut
    recipe: Recipe
    augment: Augmentation


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A fit up to its last training."""

    compute: Compute
    weights: Weights
    last: Phase
    start: Epoch | None
    """What the probe before it has reached, where there is one."""


def _begin(
    options: FitOptions, backbone: Backbone, splits: Splits, keeper: Keeper | None = None
) -> Generator[Event, None, _Begun]:
    """Build the model, and train the probe where the strategy has one before the rest.

    Not where the rest goes on from a checkpoint, which is behind the probe.
    """
    options = settle(options, weight_sets(backbone))
    compute = compute_on(options.device, options.precision, options.layout)
    built = build(backbone, plan_of(options), len(splits.train.classes))
    last = prepare(options, built.cut, splits, scratch=built.weights.state is None)
    refuse_unjudged(last, splits.whole, splits.val)
    compute.place(built.cut.model)
    start: Epoch | None = None
    if options.strategy == "probe+finetune" and (keeper is None or not keeper.there):
        head_cut = recut(built.cut.model, "backbone")
        first = prepare(for_the_probe(options), head_cut, splits, scratch=False)
        _, reached = yield from keep_best(
            first, compute, (yield from _read(first, compute, splits)), None
        )
        yield Note(text="the head is in place; now everything that is not frozen is trained")
        start = replace(reached, number=0, rate=0.0)
        # The probe froze what is trained from here on.
        last = replace(last, cut=recut(built.cut.model, options.freeze))
    return _Begun(compute=compute, weights=built.weights, last=last, start=start)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A fit before the first step of its last training."""

    options: FitOptions
    cut: Cut
    feed: Feed
    optimizer: torch.optim.Optimizer
    loss: Loss
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""


def ready(options: FitOptions, backbone: Backbone, splits: Splits) -> Generator[Event, None, Ready]:
    """All that `train` does before the first gradient step of its last training.

    For a range test (range_test.py), which brings rates of its own. Raises every `TlkitError`, one
    of them where the fit would take no gradient steps.
    """
    begun = yield from _begin(options, backbone, splits)
    last = begun.last
    if last.recipe.optimizer == "lbfgs":
        raise OptionError(
            "a head that is solved has no learning rate",
            found="a linear head on frozen features, which lbfgs solves",
            expected="training in steps",
            do="use --optimizer adamw (or adam, sgd), here and in the fit",
        )
    if last.cut.head_only:
        options.refuse(
            ["lr"],
            "a backbone that is trained too, to whose rate this stands; here --min-lr and "
            "--max-lr are the head's rates",
        )
    course = yield from _read(last, begun.compute, splits)
    optimizer, loss = _steps(last, begun.compute, course)
    return Ready(
        options=last.options,
        cut=last.cut,
        feed=course.feed,
        optimizer=optimizer,
        loss=loss,
        bad=course.bad,
    )


def prepare(options: FitOptions, cut: Cut, splits: Splits, *, scratch: bool) -> Phase:
    """Decide what is left open, and refuse what cannot work or would be ignored.

    `scratch` says that the backbone's weights are random.
    """
    recipe = recipe_for(
        options,
        cut,
        images=len(splits.train),
        bytes_each=_stored_bytes(cut) if cut.has_bank else 0,
        own_val=splits.whole is None,
    )
    augment = augmentation(recipe.augment, cut.model.spec, options.seed, jitter=options.jitter)
    refuse_idle(options, cut, recipe, distinct=augment.distinct)
    stored = len(splits.train) if cut.has_bank else 0
    options = for_steps(options, scratch=scratch, stored=stored)
    refuse_lone_images(options, cut, recipe)
    refuse_idle_processes(options, recipe, images=len(splits.train))
    return Phase(options=options, cut=cut, recipe=recipe, augment=augment)


def _read(phase: Phase, compute: Compute, splits: Splits) -> Generator[Event, None, Course]:
    """Say what was decided, and read the images or run the frozen part over them."""
    yield from decisions(phase)
    if splits.whole is not None and holds_none_out(phase, splits.whole, splits.val):
        course = yield from _from_whole(phase, compute, splits.whole, splits.test)
    else:
        feed_from = _from_bank if phase.cut.has_bank else _from_images
        course = yield from feed_from(phase.options, phase.cut, compute, splits, phase.augment)
    refuse_gone(splits, course.train_labels)
    return course


def decisions(phase: Phase) -> Iterator[Note]:
    """What `auto` became, and why."""
    for reason in phase.recipe.reasons:
        yield Note(text=reason)
    if phase.recipe.optimizer != "lbfgs":
        yield Note(text=rates_in_words(phase.options, phase.cut))


def _stored_bytes(cut: Cut) -> int:
    """What one view of one image takes in the bank."""
    spec = cut.model.spec
    shape = (1, spec.channels, *spec.size)
    image = torch.zeros(shape, dtype=torch.uint8, device=cut.model.normalise.mean.device)
    with torch.inference_mode():
        return int(cut.frozen(image).numel()) * 4


def _from_bank(
    options: FitOptions, cut: Cut, compute: Compute, splits: Splits, augment: Augmentation
) -> Generator[Event, None, Course]:
    """Run the frozen part once over everything."""
    views = views_kept(options, augment)
    plain = augmentation("none", cut.model.spec, options.seed)
    held_out = [one for one in (splits.val, splits.test) if one is not None]
    runs = extractor_for(options, cut, compute, len(splits.train) * views + sum(map(len, held_out)))
    train = yield from runs.fill(splits.train, augment, views=views, what="features, train")
    val = yield from runs.fill(splits.val, plain, views=1, what="features, val")
    test = None
    if splits.test is not None:
        test = yield from runs.fill(splits.test, plain, views=1, what="features, test")
    yield from about_bad(options, train.bad + val.bad + (() if test is None else test.bad))
    course = bank_course(
        options, cut, compute, (train, val), test=test, classes=len(splits.train.classes)
    )
    return replace(course, engine=runs.choice.name)


def _from_whole(
    phase: Phase, compute: Compute, whole: Catalog, tested: Catalog | None
) -> Generator[Event, None, Course]:
    """Run the frozen part once over everything, and hold nothing out."""
    options, cut, augment = phase.options, phase.cut, phase.augment
    views = views_kept(options, augment)
    plain = augmentation("none", cut.model.spec, options.seed)
    images = views_computed(views, augment, whole, tested)
    runs = extractor_for(options, cut, compute, images)
    learn = yield from runs.fill(whole, augment, views=views, what="features, train")
    judged = learn
    if augment.distinct is None:
        judged = yield from runs.fill(whole, plain, views=1, what="features, train, plain")
    test = None
    if tested is not None:
        test = yield from runs.fill(tested, plain, views=1, what="features, test")
    yield from about_bad(options, learn.bad + (() if test is None else test.bad))
    course = whole_course(options, cut, compute, learn, replace(judged, bad=()), test=test)
    return replace(course, engine=runs.choice.name)


def extractor_for(options: FitOptions, cut: Cut, compute: Compute, images: int) -> Extractor:
    """What runs the frozen part over so many views, as the options have it."""
    return extractor(
        cut,
        compute,
        backbone=options.backbone,
        engine=options.engine,
        images=images,
        keep=options.bank == "disk",
        workers=options.workers,
    )


def views_kept(options: FitOptions, augment: Augmentation) -> int:
    """Views of each image in the bank: no more than there are different ones."""
    return options.views if augment.distinct is None else min(options.views, augment.distinct)


def views_computed(kept: int, augment: Augmentation, whole: Catalog, tested: Catalog | None) -> int:
    """Views of all images: those kept of each to learn from, the plain ones where they are not
    among them, and those of the test part.
    """
    each = kept + (augment.distinct is None)
    return len(whole) * each + (0 if tested is None else len(tested))


def bank_course(
    options: FitOptions,
    cut: Cut,
    compute: Compute,
    banks: tuple[Bank, Bank],
    *,
    test: Bank | None,
    classes: int,
) -> Course:
    """A course on banks of training and validation images.

    What the head scales by is taken from the training bank alone.
    """
    train, val = banks
    if cut.head_only:
        scale = cut.model.head.get_submodule("scale")
        if isinstance(scale, Scale):
            scale.fit_to(train.blocks())
    return Course(
        feed=BankFeed(module=cut.trained, bank=train, batch=options.batch, seed=options.seed),
        train_labels=train.labels,
        val_labels=val.labels,
        val_files=tuple(val.catalog.files),
        classes=classes,
        val_logits=lambda: bank_logits(cut, compute, val),
        test=None if test is None else lambda: bank_tested(cut, compute, test),
        bad=train.bad + val.bad,
        banks=banks,
    )


def whole_course(
    options: FitOptions,
    cut: Cut,
    compute: Compute,
    learn: Bank,
    plain: Bank,
    *,
    test: Bank | None = None,
) -> Course:
    """A course that holds nothing out. `plain` has the plain view of the images in `learn`.

    What the head scales by is taken from all of them, and knows their classes.
    """
    course = bank_course(
        options, cut, compute, (learn, plain), test=test, classes=len(learn.catalog.classes)
    )
    scale = cut.model.head.get_submodule("scale")
    if isinstance(scale, Scale):
        scale.fit_to_few(torch.cat([*learn.blocks()]), learn.labels.repeat_interleave(learn.views))
    return replace(course, crossed=True)


def bank_tested(cut: Cut, compute: Compute, test: Bank) -> Tested:
    """What the model, as it is now, makes of a bank's first views."""
    return Tested(
        labels=test.labels.numpy(),
        probabilities=probabilities(bank_logits(cut, compute, test)),
        bad=test.bad,
    )


def _from_images(
    options: FitOptions, cut: Cut, compute: Compute, splits: Splits, augment: Augmentation
) -> Generator[Event, None, Course]:
    """Check that everything can be read, then read it in every epoch."""
    train, val, test = splits.train, splits.val, splits.test
    bad: tuple[BadImage, ...] = ()
    test_bad: tuple[BadImage, ...] = ()
    if not splits.checked:
        train, bad = yield from readable(train, workers=options.workers)
        val, more = yield from readable(val, workers=options.workers)
        bad += more
        if test is not None:
            test, test_bad = yield from readable(test, workers=options.workers)
        yield from about_bad(options, bad + test_bad)
    spec = cut.model.spec
    room = Room(options.cache, int(options.cache_gb * 1e9))
    # That keeps four times the network's size: a random crop of a third of the area, enlarged to
    # it, needs 1.7 times as many pixels.
    pixels = Decoded(train.paths, at_least_px=detail(spec), room=room)
    val_pixels = Decoded(val.paths, at_least_px=detail(spec), room=room)

    def logits_of(catalog: Catalog, found: Decoded) -> Tensor:
        return image_logits(
            cut, compute, catalog, found, batch=options.batch, workers=options.workers
        )

    def tested(catalog: Catalog) -> Tested:
        once = Decoded(catalog.paths, at_least_px=detail(spec), room=Room("none", 0))
        logits = logits_of(catalog, once)
        return Tested(labels=catalog.labels, probabilities=probabilities(logits), bad=test_bad)

    return Course(
        feed=ImageFeed(
            module=cut.model,
            catalog=train,
            augmentation=augment,
            pixels=pixels,
            batch=options.batch,
            seed=options.seed,
            workers=options.workers,
        ),
        train_labels=torch.from_numpy(train.labels),
        val_labels=torch.from_numpy(val.labels),
        val_files=tuple(val.files),
        classes=len(splits.train.classes),
        val_logits=lambda: logits_of(val, val_pixels),
        test=None if test is None else partial(tested, test),
        bad=bad,
        banks=None,
    )


def about_bad(options: FitOptions, bad: tuple[BadImage, ...]) -> Generator[Note, None, None]:
    """Refuse unreadable images, or name each as left out: as `on_bad` says."""
    if options.on_bad == "error":
        refuse(list(bad))
    for one in bad:
        yield Note(text=f"left out: {one.path}: {one.reason}")


def refuse_gone(splits: Splits, labels: Tensor) -> None:
    """Raise `FolderError` for a class of which no training image could be read."""
    classes = splits.train.classes
    counts = torch.bincount(labels, minlength=len(classes))
    gone = [name for name, count in zip(classes, counts, strict=True) if not count]
    if gone:
        raise FolderError(
            f"{splits.train.root} has classes without a readable image to learn from",
            found=listing(gone),
            expected="at least one of each class, besides those held out",
            do="repair or add images, or remove these folders",
        )


def keep_best(
    phase: Phase,
    compute: Compute,
    course: Course,
    start: Epoch | None,
    keeper: Keeper | None = None,
) -> Generator[Event, None, tuple[list[Epoch], Epoch]]:
    """Train, and put the tensors of the best epoch back into the model.

    With `keeper` a training in steps goes on from its checkpoint, if it has one, and writes more.
    """
    options, cut, name = phase.options, phase.cut, phase.recipe.optimizer
    best = Best(cut, options)
    found = None if keeper is None else keeper.take()
    if found is not None:
        best.stand(found)
        yield Note(text=f"goes on from step {found.counts['training']['steps']}")
    elif start is not None:
        yield start
        best.take(start)
    records: Generator[Event, None, None]
    kept = None if keeper is None else Kept(best, keeper, found)
    found = None  # as large as the training: not kept beside it
    if name == "lbfgs" and course.banks is not None:
        weights = class_weights_for(options, compute, course.train_labels)
        records = solve(
            cut, compute, course.banks[0], course.judge,
            path=options.epochs, class_weights=weights, smoothing=options.label_smoothing,
        )  # fmt: skip
    else:
        optimizer, loss = _steps(phase, compute, course)
        records = epochs(
            cut, course.feed, course.judge, options,
            optimizer=optimizer, loss=loss,
            watch=kept,
        )  # fmt: skip
    try:
        with contextlib.closing(
            _until_stopped(records, kept if name != "lbfgs" else None)
        ) as asked:
            for record in asked:
                yield record
                if isinstance(record, Epoch):
                    best.take(record)
    except TrainingError as error:
        if not best.history:
            raise
        yield Note(text=f"{error}\nwhat was learnt up to epoch {best.epoch.number} is kept")
        kept = None  # what it stands at now is not worth going on from
    if kept is not None and name != "lbfgs":
        kept.end()
    if not math.isfinite(best.epoch.val_loss):
        raise diverged(options, f"on the validation images, from epoch {best.epoch.number} on")
    best.put_back()
    return best.history, best.epoch


def _until_stopped(
    records: Generator[Event, None, None], kept: Kept | None
) -> Generator[Event, None, None]:
    """The records; where nobody asks for more behind an epoch, that is kept too."""
    for record in records:
        try:
            yield record
        except GeneratorExit:
            records.close()  # the tensors are those of the last step again, not an average
            if kept is not None and isinstance(record, Epoch):
                kept.stop()
            raise


def _steps(phase: Phase, compute: Compute, course: Course) -> tuple[torch.optim.Optimizer, Loss]:
    """What a gradient step needs besides its batches."""
    loss = loss_for(
        compute,
        course.feed.module,
        phase.options,
        class_weights=class_weights_for(phase.options, compute, course.train_labels),
        classes=course.classes,
    )
    return optimizer_for(phase.cut, phase.options, phase.recipe.optimizer), loss


def refit(
    options: FitOptions, cut: Cut, compute: Compute, course: Course, best: Epoch
) -> Iterator[Note]:
    """Let the head learn from the validation images too, now that they have chosen."""
    if course.banks is None:
        return
    solve_on(options, cut, compute, course.banks, best.rate)
    images = sum(len(bank.labels) for bank in course.banks)
    yield Note(
        text=f"solved once more on all {images} images with the penalty {best.rate:.2g}; "
        "the validation scores are those from before"
    )
