"""Sizing: the verb `summary`, from the name of a backbone to how large it is.

In: the options that shape a network. Out: a `Summary`. Nothing is downloaded and no weights are
read: sizes do not depend on the numbers.
Next door: fitting.py (which builds the same network and trains it), model/summary.py (counting).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tlkit.backbone import Backbone, Weights
from tlkit.errors import OptionError, TlkitError, briefly, machine_error, raise_machine_error
from tlkit.model.build import build, plugin_failed, weight_sets
from tlkit.model.summary import Summary, summarise
from tlkit.options import (
    FitOptions,
    ShapeOptions,
    SummaryOptions,
    declared,
    own_parameters,
    signature,
)
from tlkit.plugins import choose, printing_aside
from tlkit.settings import with_own_settings
from tlkit.train.recipe import plan_of, refuse_contradiction, refuse_idle_in_head, settle
from tlkit.weights import unread


@with_own_settings
def size(options: SummaryOptions) -> Summary:
    """Count on a network built without memory for its numbers. Raises `TlkitError`."""
    backbone = choose(options.backbone).backbone
    weights = unread(weight_sets(backbone), options.weights)
    own_px = weights.input.crop_px
    if options.px:
        spec = dataclasses.replace(
            weights.input,
            crop_px=options.px,
            resize_px=max(options.px, weights.input.resize_px),
            crop_width_px=0,
            resize_width_px=0,
        )
        weights = dataclasses.replace(weights, input=spec)
    # Refused before anything is built.
    fit = _fit_options(options, backbone)
    try:
        with torch.device("meta"), printing_aside():
            parts = (
                _with_head(backbone, weights, fit, options.classes)
                if options.classes
                else _as_published(backbone, weights)
            )
            return summarise(parts, weights.input, batch=options.batch, depth=options.depth)
    except TlkitError as error:
        # `build` cannot know that it was the size which a plugin's code stumbled over.
        if options.px in (0, own_px) or error.__cause__ is None or machine_error(error):
            raise
        raise _too(options.px, own_px, error.__cause__) from error
    except Exception as error:  # a network may raise anything
        raise_machine_error(error)
        if options.px not in (0, own_px):
            raise _too(options.px, own_px, error) from error
        raise plugin_failed(backbone, error) from error


def _fit_options(options: SummaryOptions, backbone: Backbone) -> FitOptions:
    """What a fit with these options would be told, with `freeze` decided."""
    names = [one.name for one in declared(ShapeOptions)]
    if not options.classes:
        # The weights decide the input, and whether there is a classifier.
        options.refuse(
            [name for name in names if name not in ("backbone", "weights")],
            "--classes N, which shows the network with a head; without it, as it was published",
        )
    fit = FitOptions(**{name: getattr(options, name) for name in names})
    refuse_idle_in_head(fit)
    return settle(fit, weight_sets(backbone))


def _with_head(
    backbone: Backbone, weights: Weights, fit: FitOptions, classes: int
) -> Mapping[str, nn.Module]:
    cut = build(backbone, plan_of(fit), classes, weights=weights).cut
    refuse_contradiction(fit, cut)
    model = cut.model
    parts = {"features": model.features, "neck": model.neck, "body": model.body, "head": model.head}
    return {name: one for name, one in parts.items() if not isinstance(one, nn.Identity)}


def _as_published(backbone: Backbone, weights: Weights) -> Mapping[str, nn.Module]:
    network = backbone.build(weights)
    parts = {"features": network.features, "neck": network.neck}
    return parts if network.classifier is None else {**parts, "classifier": network.classifier}


def _too(px: int, own_px: int, error: BaseException) -> OptionError:
    return OptionError(
        "the network does not take images of that size",
        found=f"--px {px}: {briefly(error)}",
        expected=f"a size that it can be run on; {own_px} is its own",
        do="leave --px out, or choose another size",
    )


def summary(backbone: str, **options: Any) -> Summary:
    """How large a backbone is, or with `classes` what `fit` would build on it.

    `options` are the fields of `tlkit.SummaryOptions`; an unknown one is an error that lists them.
    Raises `TlkitError`.
    """
    return size(SummaryOptions.of({**options, "backbone": backbone}))


summary.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(summary), SummaryOptions, returns=Summary
)
