"""Inception: GoogLeNet and Inception v3 of Szegedy et al., built by torchvision.

The auxiliary classifiers are off, and their tensors are left out of every file: the networks give
one tensor in train mode too. torchvision turns `transform_input` on with its weights, which
renormalises ImageNet's mean and std to 0.5; here the weights' `InputSpec` says 0.5 instead.
Not here: reading or downloading weights (tlkit/weights.py), freezing and heads (tlkit/model/).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

from tlkit.backbone import Backbone, Network, Weights, WeightSet, torchvision_sets, with_input

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")

GOOGLENET = {
    "stem": ("conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
    "inception3": ("inception3a", "inception3b", "maxpool3"),
    "inception4": ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
    "inception5": ("maxpool4", "inception5a", "inception5b"),
}
INCEPTION_V3 = {
    "stem": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    "reduce": ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    "mixed5": ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    "mixed6": ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    "mixed7": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


def _weights(name: str) -> tuple[WeightSet, ...]:
    from torchvision.models import get_model_weights

    half = (0.5, 0.5, 0.5)
    return with_input(torchvision_sets(get_model_weights(name)), mean=half, std=half)


def _build(name: str, layout: Mapping[str, Sequence[str]], weights: Weights) -> Network:
    from torch import nn
    from torchvision.models import get_model

    network = get_model(
        name,
        weights=None,
        aux_logits=False,
        transform_input=False,
        # Said aloud, because torchvision warns where it is not. The papers' random numbers take
        # three times as long to draw as torch's own, so not where they are replaced at once.
        init_weights=weights.state is None,
    )
    weights.load_into(network, leave=AUXILIARY)
    stages = {
        stage: nn.Sequential(OrderedDict((part, getattr(network, part)) for part in parts))
        for stage, parts in layout.items()
    }
    return Network(
        features=nn.Sequential(OrderedDict(stages)),
        neck=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier=nn.Sequential(network.dropout, network.fc),
        stages={stage: (part,) for stage, part in stages.items()},
        input=weights.input,
    )


def _inception(name: str, about: str, layout: Mapping[str, Sequence[str]]) -> Backbone:
    return Backbone(
        name=name,
        about=about,
        weights=partial(_weights, name),
        build=partial(_build, name, layout),
    )


googlenet = _inception(
    "googlenet", "GoogLeNet, Inception v1 (Szegedy et al. 2014, arXiv 1409.4842)", GOOGLENET
)
inception_v3 = _inception(
    "inception_v3", "Inception v3, 299 px (Szegedy et al. 2015, arXiv 1512.00567)", INCEPTION_V3
)
