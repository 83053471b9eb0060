"""VGG: the networks of Simonyan and Zisserman, built by torchvision.

One `Backbone` per configuration of the paper's table 1, with and without BatchNorm.
Stages are the paper's five blocks, each ending in its max pooling; D = 25088 (7 x 7 x 512).
Not here: reading or downloading weights (tlkit/weights.py), freezing and heads (tlkit/model/).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from tlkit.backbone import Backbone, Network, Weights, WeightSet, torchvision_sets

if TYPE_CHECKING:
    from torch import nn

# The set that the SSD detector was trained from: its file has NaN where the classifier would be.
WITHOUT_CLASSIFIER = ("IMAGENET1K_FEATURES",)


def _weights(name: str) -> tuple[WeightSet, ...]:
    from torchvision.models import get_model_weights

    return torchvision_sets(get_model_weights(name), without_classifier=WITHOUT_CLASSIFIER)


def _build(name: str, weights: Weights) -> Network:
    from torch import nn

    network = _network(name, weights)
    blocks = _blocks(network.features)
    untrained = weights.name in WITHOUT_CLASSIFIER
    return Network(
        features=nn.Sequential(OrderedDict(blocks)),
        neck=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier=None if untrained else network.classifier,
        stages={stage: (block,) for stage, block in blocks.items()},
        input=weights.input,
    )


def _network(name: str, weights: Weights) -> Any:
    """The network as torchvision builds it, with the weights loaded."""
    import torch
    from torchvision.models import get_model

    if weights.state is None:
        return get_model(name, weights=None)
    # Drawing 138 million random numbers, to replace every one of them, takes two seconds.
    with torch.device("meta"):
        network = get_model(name, weights=None)
    network.to_empty(device="cpu")
    for buffer in network.buffers():
        # The oldest files lack BatchNorm's counter, which torch then leaves as it is.
        buffer.zero_()
    weights.load_into(network)
    return network


def _blocks(layers: nn.Sequential) -> dict[str, nn.Sequential]:
    """The layers in blocks, each ending in its max pooling."""
    from torch import nn

    blocks: list[list[nn.Module]] = [[]]
    for layer in layers:
        blocks[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
    return {f"block{i}": nn.Sequential(*block) for i, block in enumerate(blocks[:-1], start=1)}


def _vgg(layers: int, letter: str, *, norm: bool = False) -> Backbone:
    name = f"vgg{layers}_bn" if norm else f"vgg{layers}"
    return Backbone(
        name=name,
        about=f"VGG-{layers}, configuration {letter}{', with BatchNorm' if norm else ''} "
        "(Simonyan and Zisserman 2014, arXiv 1409.1556)",
        weights=partial(_weights, name),
        build=partial(_build, name),
    )


vgg11 = _vgg(11, "A")
vgg11_bn = _vgg(11, "A", norm=True)
vgg13 = _vgg(13, "B")
vgg13_bn = _vgg(13, "B", norm=True)
vgg16 = _vgg(16, "D")
vgg16_bn = _vgg(16, "D", norm=True)
vgg19 = _vgg(19, "E")
vgg19_bn = _vgg(19, "E", norm=True)
