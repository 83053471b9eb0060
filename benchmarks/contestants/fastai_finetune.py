"""fastai: every layer of a ResNet-18 from random weights, its own augmentation, one cycle."""

from __future__ import annotations

import json
import sys
import time

from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, resnet18, vision_learner
from lite0 import PX, RESIZE_PX

if __name__ == "__main__":
    folder, epochs = sys.argv[1], int(sys.argv[2])
    loaders = ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="test",
        bs=32,
        num_workers=2,
        item_tfms=Resize(RESIZE_PX),
        batch_tfms=aug_transforms(size=PX),
    )
    learner = vision_learner(loaders, resnet18, pretrained=False)
    learner.unfreeze()
    began = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs)
    print(json.dumps({"epoch_s": (time.perf_counter() - began) / epochs}))
