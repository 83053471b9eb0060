"""Describe: what a backbone is made of, without loading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tlkit.backbone import Backbone, WeightSet
from tlkit.errors import TlkitError
from tlkit.model.assemble import Normalise
from tlkit.model.build import plugin_failed, weight_sets
from tlkit.plugins import printing_aside
from tlkit.weights import unread


@dataclass(frozen=True, kw_only=True)
class Description:
    """A backbone in numbers."""

    sets: tuple[WeightSet, ...]
    parameters: int
    """Features, neck and classifier."""
    features: int
    width: int
    """D"""
    classifier: str
    """Its layers in words."""
    stages: Mapping[str, int]
    """Parameters of each."""


def describe(backbone: Backbone) -> Description:
    """Count on a network built without memory for its numbers (torch's meta device)."""
    sets = weight_sets(backbone)
    try:
        with torch.device("meta"), torch.no_grad(), printing_aside():
            network = backbone.build(unread(sets, "none"))
            spec = network.input
            image = torch.zeros(1, spec.channels, *spec.size)
            width = network.neck.eval()(network.features.eval()(Normalise(spec)(image))).shape[1]
    except TlkitError:
        raise
    except Exception as error:  # a plugin's code may raise anything
        raise plugin_failed(backbone, error) from error
    parts = [one for one in (network.features, network.neck, network.classifier) if one is not None]
    return Description(
        sets=sets,
        parameters=sum(_count(one) for one in parts),
        features=_count(network.features),
        width=width,
        classifier="no classifier" if network.classifier is None else _layers(network.classifier),
        stages={
            name: sum(_count(one) for one in members) for name, members in network.stages.items()
        },
    )


def _count(part: nn.Module | nn.Parameter) -> int:
    if isinstance(part, nn.Module):
        return sum(one.numel() for one in part.parameters())
    return part.numel()


def _layers(classifier: nn.Module) -> str:
    linear = [one for one in classifier.modules() if isinstance(one, nn.Linear)]
    if not linear:
        return f"classifier {type(classifier).__name__}"
    sizes = [linear[0].in_features, *(one.out_features for one in linear)]
    return "classifier " + " -> ".join(map(str, sizes))
