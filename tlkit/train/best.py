"""Best: the epochs of a training so far, and the tensors of the one that is kept.

In: `Epoch`s as they come. Out: the best by --monitor, back in the model when all is done; where
the training has checkpoints, all of it is in them, so that it can be interrupted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from tlkit.model.assemble import Cut
from tlkit.options import FitOptions
from tlkit.train.checkpoint import Keeper, Standing
from tlkit.train.events import Epoch, Tick
from tlkit.train.judge import Verdict, standing
from tlkit.train.loop import Training, under


class Best:
    """The history of a training."""

    def __init__(self, cut: Cut, options: FitOptions) -> None:
        self._cut = cut
        self._options = options
        self.history: list[Epoch] = []
        self._place = -1
        self._tensors: dict[str, Tensor] = {}

    @property
    def epoch(self) -> Epoch:
        """The best one so far; there must be one."""
        return self.history[self._place]

    def take(self, epoch: Epoch) -> None:
        """Take in an epoch, of which the model holds the tensors."""
        self.history.append(epoch)
        if self._place < 0 or self._rank(epoch) < self._rank(self.epoch):
            self._place = len(self.history) - 1
            live = self._cut.trained_tensors()
            self._tensors = {name: one.detach().clone() for name, one in live.items()}

    def put_back(self) -> None:
        """The best epoch's tensors into the model, for evaluation."""
        self._cut.put(self._tensors)
        self._cut.training(False)

    def standing(self) -> Standing:
        """All of it."""
        return Standing(
            counts={
                "history": [dataclasses.asdict(one) for one in self.history],
                "best": self._place,
            },
            tensors={f"best.{name}": one for name, one in self._tensors.items()},
        )

    def stand(self, found: Standing) -> None:
        """Go on from there."""
        self.history = [Epoch(**one) for one in found.counts["history"]]
        self._place = found.counts["best"]
        live = self._cut.trained_tensors()
        self._tensors = {
            name: live[name].detach().clone().copy_(one)
            for name, one in under(found.tensors, "best.").items()
        }

    def _rank(self, epoch: Epoch) -> tuple[float, ...]:
        score = Verdict(
            loss=epoch.val_loss,
            accuracy=epoch.val_accuracy,
            balanced_accuracy=epoch.val_balanced_accuracy,
        )
        return standing(score, self._options.monitor)


class Kept:
    """A training and its best, in checkpoints: a `loop.Watch`."""

    def __init__(self, best: Best, keeper: Keeper, found: Standing | None) -> None:
        """`found` is what to go on from."""
        self._best = best
        self._keeper = keeper
        self._found = found

    def begin(self, training: Training) -> None:
        """Where the checkpoint stands, if there is one."""
        self._training = training
        found, self._found = self._found, None
        if found is not None:
            training.stand(
                Standing(
                    counts=found.counts["training"],
                    tensors=under(found.tensors, "training."),
                )
            )

    def over(self, training: Training, tick: Tick) -> Iterator[Tick]:
        """Write a checkpoint when it is time, and when the one who asked for the fit goes away."""
        if self._keeper.due:
            self._write(training)
        try:
            yield tick
        except GeneratorExit:
            self._write(training)
            raise

    def stop(self) -> None:
        """Nobody asks for more behind an epoch: write where the training stands."""
        self._write(self._training)

    def end(self) -> None:
        """All epochs are done, and may be long before the fit is: of folds, or with a test part."""
        if self._keeper.due:
            self._write(self._training)

    def _write(self, training: Training) -> None:
        best, now = self._best.standing(), training.standing()
        named = {f"training.{name}": one for name, one in now.tensors.items()}
        self._keeper.write(
            Standing(
                counts={**best.counts, "training": now.counts},
                tensors={**best.tensors, **named},
            )
        )
