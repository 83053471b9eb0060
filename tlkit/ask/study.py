"""Study: the features of a folder's images by one backbone, and heads on any of the images.

In: the options of a fit, catalogs. Out: a `Study`. The frozen part runs once over all images, or
not at all where the bank holds them; each head is then a matter of a second, solved as `tlkit fit`
would, and thrown away when it has been asked.
Next door: train/folds.py (heads of a cross-validation, which are kept).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tlkit.artifact import tensors_of
from tlkit.calibration import temperature_of, tempered
from tlkit.data.folder import Catalog
from tlkit.data.split import Splits, held_out
from tlkit.data.transforms import augmentation
from tlkit.errors import OptionError
from tlkit.model.build import build, weight_sets
from tlkit.model.device import Compute, compute_on
from tlkit.options import FitOptions
from tlkit.plugins import choose
from tlkit.steps import finish
from tlkit.train.bank import Bank
from tlkit.train.events import Event
from tlkit.train.judge import bank_logits, probabilities
from tlkit.train.probe import threads_for
from tlkit.train.recipe import plan_of, settle
from tlkit.train.run import (
    Phase,
    about_bad,
    bank_course,
    extractor_for,
    holds_none_out,
    prepare,
    refuse_unjudged,
    trained,
    whole_course,
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Features by one backbone, and the head that is trained on them again and again."""

    phase: Phase
    compute: Compute
    banks: tuple[Bank, ...]
    """One of each catalog, of the images that could be read, in their order."""
    begin: Mapping[str, Tensor]
    """The head before any training."""

    def told(self, learn: Bank, judged: Sequence[Bank], *, seed: int) -> list[NDArray[np.float64]]:
        """(n, C) probabilities of the images of each bank by a head that has learnt from `learn`.

        Those that `tlkit.fit` with this seed on a folder of the images in `learn`, and then
        `predict`, would give: chosen, solved and calibrated alike. Every class has an image in
        `learn`; raises `FolderError` as a fit does where there is none to choose by.
        """
        options, cut = replace(self.phase.options, seed=seed), self.phase.cut
        phase, whole = replace(self.phase, options=options), learn.catalog
        held = held_out(whole, options.val_fraction, seed)
        refuse_unjudged(phase, whole, whole.take(held))
        cut.put(self.begin)
        with threads_for(learn.numbers * len(whole.classes)):
            if holds_none_out(phase, whole, whole.take(held)):
                course = whole_course(options, cut, self.compute, learn, learn)
            else:
                train = learn.take(np.setdiff1d(np.arange(len(whole)), held), views=1)
                val = learn.take(held, views=1)
                course = bank_course(
                    options, cut, self.compute, (train, val), test=None, classes=len(whole.classes)
                )
            learnt = finish(trained(phase, self.compute, course))
            temperature = temperature_of(learnt.unseen.probabilities, learnt.unseen.labels)
            return [
                tempered(probabilities(bank_logits(cut, self.compute, one)), temperature)
                for one in judged
            ]


def study(options: FitOptions, catalogs: Sequence[Catalog]) -> Generator[Event, None, Study]:
    """Run the frozen part over every image of the catalogs, which have the same classes.

    Raises every `TlkitError` that a fit with these options raises, and `OptionError` where more
    than a head on stored features would be trained.
    """
    phase, compute = begin(options, catalogs[0])
    plain = augmentation("none", phase.cut.model.spec, options.seed)
    runs = extractor_for(phase.options, phase.cut, compute, sum(map(len, catalogs)))
    banks = []
    for catalog in catalogs:
        banks.append((yield from runs.fill(catalog, plain, views=1, what="features")))
    yield from about_bad(options, tuple(bad for bank in banks for bad in bank.bad))
    begun = tensors_of(phase.cut)
    return Study(phase=phase, compute=compute, banks=tuple(banks), begin=begun)


def begin(options: FitOptions, images: Catalog) -> tuple[Phase, Compute]:
    """The network with a head for the classes of these images, placed, before anything has run.

    Raises what `study` raises.
    """
    # Heads are learnt from the plain view alone: in them it makes no difference that we measured.
    options = replace(options, augment="none", views=1)
    backbone = choose(options.backbone).backbone
    options = settle(options, weight_sets(backbone))
    compute = compute_on(options.device, options.precision, options.layout)
    built = build(backbone, plan_of(options), len(images.classes))
    cut = built.cut
    if not (cut.has_bank and cut.head_only):
        raise OptionError(
            "more than a head would be trained",
            found=f"--freeze {options.freeze}, --weights {options.weights}",
            expected="everything but the head to be frozen: its features answer the question",
            do="leave --freeze out, or use --freeze backbone",
        )
    whole = Splits(train=images, val=images, test=None, whole=images)
    phase = prepare(options, cut, whole, scratch=built.weights.state is None)
    compute.place(cut.model)
    return phase, compute
