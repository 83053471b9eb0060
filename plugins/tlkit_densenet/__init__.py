"""DenseNet: the networks of Huang et al., built by torchvision.

One `Backbone` per depth. Stages are the stem and four blocks; a block holds the transition after
it, and the last one the final norm and ReLU, so that every stage ends in a map worth keeping.
Not here: reading or downloading weights (tlkit/weights.py), freezing and heads (tlkit/model/).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from functools import partial

from tlkit.backbone import Backbone, Network, StateDict, Weights, WeightSet, torchvision_sets

# The published files are older than torch's ban on dots in module names: their dense layers say
# `norm.1.weight` where the network now says `norm1.weight`.
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def _weights(name: str) -> tuple[WeightSet, ...]:
    from torchvision.models import get_model_weights

    return torchvision_sets(get_model_weights(name))


def _build(name: str, weights: Weights) -> Network:
    from torch import nn
    from torchvision.models import get_model

    network = get_model(name, weights=None)
    if weights.state is not None:
        replace(weights, state=_modern(weights.state)).load_into(network)
    parts = network.features
    stages = {
        "stem": nn.Sequential(parts.conv0, parts.norm0, parts.relu0, parts.pool0),
        "block1": nn.Sequential(parts.denseblock1, parts.transition1),
        "block2": nn.Sequential(parts.denseblock2, parts.transition2),
        "block3": nn.Sequential(parts.denseblock3, parts.transition3),
        # torchvision applies this ReLU in forward, outside of its own `features`.
        "block4": nn.Sequential(parts.denseblock4, parts.norm5, nn.ReLU(inplace=True)),
    }
    return Network(
        features=nn.Sequential(OrderedDict(stages)),
        neck=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier=network.classifier,
        stages={stage: (part,) for stage, part in stages.items()},
        input=weights.input,
    )


def _modern(state: StateDict) -> StateDict:
    """The state with today's key names; one that has them already is unchanged."""
    return {OLD_NAME.sub(r"\1\2", key): value for key, value in state.items()}


def _densenet(layers: int) -> Backbone:
    name = f"densenet{layers}"
    return Backbone(
        name=name,
        about=f"DenseNet with {layers} layers (Huang et al. 2016, arXiv 1608.06993)",
        weights=partial(_weights, name),
        build=partial(_build, name),
    )


densenet121 = _densenet(121)
densenet161 = _densenet(161)
densenet169 = _densenet(169)
densenet201 = _densenet(201)
