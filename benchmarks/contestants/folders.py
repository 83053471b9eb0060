"""The data of the tutorials: torchvision's folders and transforms.

Apart from lite0.py, so that who does not need it does not import it.
"""

from __future__ import annotations

from lite0 import MEAN, PX, RESIZE_PX, STD
from torchvision import transforms
from torchvision.datasets import ImageFolder


def datasets(folder: str) -> tuple[ImageFolder, ImageFolder]:
    """Train, augmented as in the tutorials, and test."""
    normal = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    crop = [transforms.RandomResizedCrop(PX), transforms.RandomHorizontalFlip(), *normal]
    centre = [transforms.Resize(RESIZE_PX), transforms.CenterCrop(PX), *normal]
    return (
        ImageFolder(f"{folder}/train", transforms.Compose(crop)),
        ImageFolder(f"{folder}/test", transforms.Compose(centre)),
    )
