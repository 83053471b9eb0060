"""Build: from a chosen backbone and a plan to a model that is ready to be trained or loaded.

In: a `Backbone`, a `Plan`, the number of classes. Out: `Built`. Both fitting and loading come
through here, so that a head is always put back into the very network it was trained on.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from tlkit import cores
from tlkit.backbone import Backbone, Network, WeightSet
from tlkit.errors import PluginError, TlkitError, briefly, machine_error, pick
from tlkit.model.assemble import Cut, assemble, cut
from tlkit.model.device import drawn
from tlkit.model.heads import HEADS, HeadKind, make_head
from tlkit.plugins import PluginExit, printing_aside
from tlkit.weights import Weights, obtain


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the shape of the network and its start: enough to build it again."""

    weights: str
    attach: str
    head: str
    hidden: int
    dropout: float
    pool: str
    freeze: str
    seed: int

    @property
    def kind(self) -> HeadKind:
        """The head's row in the table. Raises `UnknownName`."""
        return pick(HEADS, self.head, "head")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model, cut, and the weights that it started from."""

    cut: Cut
    weights: Weights


def build(
    backbone: Backbone,
    plan: Plan,
    classes: int,
    *,
    weights: Weights | None = None,
    empty_head: bool = False,
) -> Built:
    """The model of a plan with a new head for C classes, on the CPU.

    `weights` stand in for the plan's where the caller has read them already. An `empty_head` takes
    no memory yet: it is on the device meta. What is random is a function of the plan's seed.
    Raises `WeightsError`, `OptionError`, `UnknownName`, `PluginError` for a plugin whose code
    fails, and `TlkitError` in a process that was forked from one that had computed.
    """
    cores.check_not_forked()

    def make(width: int) -> nn.Module:
        # What a package's head is made of may not all be in the file.
        empty = empty_head and plan.head in HEADS.own
        with torch.device("meta") if empty else contextlib.nullcontext():
            return make_head(plan.head, width, classes, plan.hidden, plan.dropout)

    _ = plan.kind  # an unknown one is told before weights are read, which may take long
    if weights is None:
        # A source may build a network to read its weights: its random numbers are not the caller's.
        with drawn(plan.seed, "weights"):
            weights = obtained(backbone, plan.weights)
    try:
        with drawn(plan.seed, "backbone"), printing_aside():
            network = backbone.build(weights)
    except TlkitError:
        raise
    except Exception as error:  # a plugin's code may raise anything
        raise plugin_failed(backbone, error) from error
    with drawn(plan.seed, "head"):
        model = assemble(network, make, attach=plan.attach, pool=plan.pool)
    return Built(cut=cut(model, plan.freeze), weights=weights)


def over(cut_before: Cut, plan: Plan, classes: int) -> Cut:
    """Another head, on another pooling, over the very features of a model that was built.

    The plan is that of the other but for its head and its pooling, and replaces the classifier.
    """
    model = cut_before.model
    network = Network(
        features=model.features,
        neck=model.neck,
        classifier=None,
        stages=model.stages,
        input=model.spec,
    )
    with drawn(plan.seed, "head"):
        other = assemble(
            network,
            lambda width: make_head(plan.head, width, classes, plan.hidden, plan.dropout),
            attach="replace",
            pool=plan.pool,
        )
    return cut(other, plan.freeze)


def weight_sets(backbone: Backbone) -> tuple[WeightSet, ...]:
    """The backbone's weight sets, at least one. Raises `PluginError`."""
    try:
        with printing_aside():
            sets = tuple(backbone.weights())
    except TlkitError:
        raise
    except Exception as error:
        raise plugin_failed(backbone, error) from error
    if not sets:
        raise PluginError(
            f"the backbone '{backbone.name}' breaks the contract",
            found="no weight set",
            expected="at least one, whose InputSpec also serves random weights",
            do="tell the plugin's author",
        )
    return sets


def obtained(backbone: Backbone, choice: str) -> Weights:
    """The chosen weights, read. Raises `WeightsError`, and `PluginError` for code that fails."""
    sets = weight_sets(backbone)
    try:
        with printing_aside():
            return obtain(sets, choice)
    except TlkitError:
        raise
    except PluginExit as error:
        raise plugin_failed(backbone, error) from error


def plugin_failed(backbone: Backbone, error: Exception) -> TlkitError:
    """Return the error for a plugin whose code raised: the plugin's, or the machine's."""
    return machine_error(error) or PluginError(
        f"the plugin of the backbone '{backbone.name}' failed",
        found=briefly(error),
        expected="a network",
        do="tell the plugin's author; `tlkit.testing.check_backbone` finds the cause",
    )
