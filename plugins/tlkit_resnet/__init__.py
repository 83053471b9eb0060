"""ResNet: the networks of He et al., built by torchvision.

One `Backbone` per depth. Stages are torchvision's own: the stem and four layers.
Not here: reading or downloading weights (tlkit/weights.py), freezing and heads (tlkit/model/).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from tlkit.backbone import Backbone, Network, Weights, WeightSet, torchvision_sets


def _weights(name: str) -> tuple[WeightSet, ...]:
    from torchvision.models import get_model_weights

    return torchvision_sets(get_model_weights(name))


def _build(name: str, weights: Weights) -> Network:
    from torch import nn
    from torchvision.models import get_model

    network = get_model(name, weights=None)
    weights.load_into(network)
    stages = {
        "stem": nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool),
        "layer1": network.layer1,
        "layer2": network.layer2,
        "layer3": network.layer3,
        "layer4": network.layer4,
    }
    return Network(
        features=nn.Sequential(OrderedDict(stages)),
        neck=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier=network.fc,
        stages={stage: (part,) for stage, part in stages.items()},
        input=weights.input,
    )


def _resnet(layers: int) -> Backbone:
    name = f"resnet{layers}"
    return Backbone(
        name=name,
        about=f"ResNet with {layers} layers (He et al. 2015, arXiv 1512.03385)",
        weights=partial(_weights, name),
        build=partial(_build, name),
    )


resnet18 = _resnet(18)
resnet34 = _resnet(34)
resnet50 = _resnet(50)
resnet101 = _resnet(101)
resnet152 = _resnet(152)
