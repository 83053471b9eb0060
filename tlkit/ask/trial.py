"""Trial: what one candidate makes of photos, by several poolings and heads, cross-validated.

In: a `Candidate`, photos. Out: an `Entrant`, whose network is built once and passes over each photo
once for all poolings; a `Score` for each pooling and head.
The rows land where a fit of that backbone and pooling looks for them.
Next door: candidates.py (who is tried), search.py (on how many photos, and who goes on).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.artifact import tensors_of
from tlkit.ask.candidates import Candidate
from tlkit.ask.study import Study, begin
from tlkit.data.folder import Catalog
from tlkit.data.split import Splits
from tlkit.data.transforms import augmentation
from tlkit.metrics import logs, wilson
from tlkit.model.assemble import Cut, Pool, Pools
from tlkit.model.build import over
from tlkit.model.device import Compute
from tlkit.model.engine import example_for, off_by
from tlkit.model.familiar import most_prototypes
from tlkit.options import FitOptions
from tlkit.steps import Tick
from tlkit.train.bank import BATCH, Bank, Extractor, Reader, together
from tlkit.train.events import Event
from tlkit.train.recipe import for_steps, plan_of, recipe_for
from tlkit.train.run import Phase, about_bad, extractor_for

POOLS = ("avg", "max")
"""Tried beside the backbone's own way, and both together, where they give other vectors."""

ALIKE = 1e-3
"""Largest difference, as a share of the largest number, of vectors that are the same pooling's."""

TIMED_BATCHES, TIMED_S = 5, 2.0
"""At most so many batches, and seconds, tell how fast a network is."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good a pooling and a head of a backbone are, by cross-validation."""

    pool: str
    head: str
    photos: int
    """N, each judged once, by a head that has not learnt from it."""
    accuracy: float
    fold_std: float
    """Standard deviation of the folds' accuracies."""
    accuracy_low: float
    accuracy_high: float
    """Wilson's 95 % interval, over the photos."""
    loss: float
    """Mean cross-entropy in nats."""
    head_bytes: int
    """Of the tensors of its head file."""
    right: NDArray[np.bool_]
    """(N,)"""
    files: tuple[str, ...]
    """N names, below the folder of the training images."""

    @property
    def order(self) -> tuple[float, float]:
        """The better score comes first: few images are often told alike, then the loss tells."""
        return -self.accuracy, self.loss


def behind(one: Score, best: Score) -> tuple[float, float]:
    """By how much `one` is less accurate than `best`, and the standard error of that.

    Paired: over the photos that both were judged by. Photos that are hard for both, which make up
    most of the error of each, say nothing of the difference.
    """
    place = {name: number for number, name in enumerate(best.files)}
    pairs = [(place[name], number) for number, name in enumerate(one.files) if name in place]
    if len(pairs) < 2:
        return best.accuracy - one.accuracy, float("inf")
    theirs, own = np.array(pairs).T
    less = best.right[theirs].astype(np.float64) - one.right[own]
    return float(less.mean()), float(less.std(ddof=1) / np.sqrt(len(less)))


class Entrant:
    """A candidate whose network is in memory. Made by `enter`."""

    def __init__(
        self, candidate: Candidate, phase: Phase, compute: Compute, catalog: Catalog, images: int
    ) -> None:
        self.candidate = candidate
        self.compute = compute
        self._catalog = catalog
        self._keep = phase
        self.pools = _pools(phase.cut, compute)
        """Those that give different vectors, the backbone's own first."""
        phases = [self._phase(pool, "linear") for pool in self.pools]
        self._runs = {
            pool: extractor_for(one.options, one.cut, compute, images)
            for pool, one in zip(self.pools, phases, strict=True)
        }
        self._every = _of_all(phase.cut, self._runs, phases)
        self.weights_bytes = _bytes(phase.cut.model.features.state_dict())
        """Of what runs before the pooling."""

    def speed(self, seed: int) -> Generator[Event, None, float]:
        """Start the engine; images per second of the network, photos being read aside."""
        runner = self._every.started or (yield from self._every.start())
        spec = self._keep.cut.model.spec
        noise = torch.Generator().manual_seed(seed)
        shape = (BATCH, spec.channels, *spec.size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)
        images = images.contiguous(memory_format=torch.channels_last)
        runner(images)  # the first takes memory and prepares
        began, fastest = time.perf_counter(), float("inf")
        for _ in range(TIMED_BATCHES):
            before = time.perf_counter()
            runner(images)
            now = time.perf_counter()
            # What other programs do can only make a batch slower.
            fastest = min(fastest, now - before)
            if now - began > TIMED_S:
                break
        return BATCH / fastest

    def lacking(self, catalog: Catalog) -> int:
        """Photos that it has not seen yet."""
        plain = augmentation("none", self._keep.cut.model.spec, self._keep.options.seed)
        return self._every.lacking(catalog, plain)

    def fill(self, catalog: Catalog, read: Reader | None) -> Generator[Event, None, Bank]:
        """Run the network over the photos that it has not seen; a bank of its own pooling.

        Raises `ImageError` for unreadable ones, unless they are to be left out.
        """
        options = self._keep.options
        plain = augmentation("none", self._keep.cut.model.spec, options.seed)
        self._every.read = read
        what = f"{self.candidate.label}, {len(catalog)} photos"
        bank = yield from self._every.fill(catalog, plain, views=1, what=what)
        yield from about_bad(options, bank.bad)
        return bank

    def study(self, pool: str, head: str, catalog: Catalog) -> Generator[Event, None, Study]:
        """A head on a pooling of photos that the network has seen."""
        phase = self._phase(pool, head)
        plain = augmentation("none", phase.cut.model.spec, phase.options.seed)
        bank = yield from self._runs[pool].fill(catalog, plain, views=1, what="features")
        begun = tensors_of(phase.cut)
        return Study(phase=phase, compute=self.compute, banks=(bank,), begin=begun)

    def _phase(self, pool: str, head: str) -> Phase:
        """What trains that head on that pooling."""
        keep = self._keep
        if (pool, head) == ("keep", "linear"):
            return keep
        options = replace(self._fit_options(), pool=pool, head=head)
        classes, images = len(self._catalog.classes), len(self._catalog)
        cut = over(keep.cut, plan_of(options), classes)
        recipe = keep.recipe
        if head != "linear":
            recipe = recipe_for(options, cut, images=images, bytes_each=0, own_val=False)
        self.compute.place(cut.model)
        options = for_steps(options, scratch=False, stored=images)
        return Phase(options=options, cut=cut, recipe=recipe, augment=keep.augment)

    def _fit_options(self) -> FitOptions:
        """Those of the network's own pooling, with nothing that training in steps has decided."""
        default = FitOptions()
        steps = {name: getattr(default, name) for name in ("lr", "backbone_lr", "batch")}
        return replace(self._keep.options, batchnorm="auto", **steps)


def enter(candidate: Candidate, options: FitOptions, catalog: Catalog, images: int) -> Entrant:
    """Build a candidate's network for the classes of a catalog, on so many images in all.

    Raises every `TlkitError` that a fit raises, and whatever a stranger's network raises.
    """
    own = replace(options, backbone=candidate.name, weights=candidate.weights, freeze="features")
    phase, compute = begin(own, catalog)
    return Entrant(candidate, phase, compute, catalog, images)


def crossed(
    study: Study, splits: Sequence[Splits], *, seed: int, what: str
) -> Generator[Event, None, Score]:
    """The score of a study's head over the folds of its photos, a step for each fold."""
    (bank,) = study.banks
    row = {name: number for number, name in enumerate(bank.catalog.files)}

    def taken(catalog: Catalog) -> Bank:
        rows = np.array([row[one] for one in catalog.files if one in row], np.int64)
        return bank.take(rows, views=1)

    files: list[str] = []
    right: list[NDArray[np.bool_]] = []
    losses: list[NDArray[np.float64]] = []
    for number, one in enumerate(splits, start=1):
        judged = taken(one.val)
        (rows,) = study.told(taken(one.train), [judged], seed=seed)
        labels = judged.labels.numpy()
        right.append(rows.argmax(axis=1) == labels)
        losses.append(-logs(rows)[np.arange(len(labels)), labels])
        files += judged.catalog.files
        yield Tick(what=what, done=number, total=len(splits))
    every = np.concatenate(right)
    low, high = wilson(int(every.sum()), len(every))
    options, cut = study.phase.options, study.phase.cut
    classes, width = len(bank.catalog.classes), bank.shape[0]
    prototypes = 2 * classes * most_prototypes(classes, width) * width
    return Score(
        pool=options.pool,
        head=options.head,
        photos=len(every),
        accuracy=float(every.mean()),
        fold_std=float(np.std([one.mean() for one in right])),
        accuracy_low=low,
        accuracy_high=high,
        loss=float(np.concatenate(losses).mean()),
        head_bytes=_bytes(tensors_of(cut)) + prototypes,
        right=every,
        files=tuple(files),
    )


def _pools(cut: Cut, compute: Compute) -> tuple[str, ...]:
    """The poolings that differ, told by what each makes of an image of noise."""
    model = cut.model
    image = example_for(model.spec)[:1]
    with torch.inference_mode():
        maps = compute.infer(nn.Sequential(model.normalise, model.features), image)
        there = {"keep": model.neck(maps)}
        if maps.ndim in (3, 4):
            for how in POOLS:
                vector = Pool(how)(maps)
                if not any(_same(vector, one) for one in there.values()):
                    there[how] = vector
    return (*there, *(["avgmax"] if "max" in there else []))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and off_by(one, other) <= ALIKE


def _of_all(cut: Cut, runs: dict[str, Extractor], phases: Sequence[Phase]) -> Extractor:
    """What fills the banks of every pooling in one pass."""
    model = cut.model
    necks = Pools([one.cut.model.neck for one in phases])
    every = nn.Sequential(model.normalise, model.features, necks)
    return together(replace(cut, frozen=every.eval()), list(runs.values()))


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors.values())
