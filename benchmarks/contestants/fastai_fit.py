"""fastai as its documentation has it: frozen body, its own head and augmentation, one cycle."""

from __future__ import annotations

import json
import sys

from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    create_head,
    params,
)
from lite0 import MEAN, PX, RESIZE_PX, STD, lite0
from torch import nn

if __name__ == "__main__":
    folder, epochs = sys.argv[1], int(sys.argv[2])
    loaders = ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="test",
        bs=32,
        num_workers=2,
        item_tfms=Resize(RESIZE_PX),
        batch_tfms=[*aug_transforms(size=PX), Normalize.from_stats(MEAN, STD)],
    )
    body = lite0(0)
    body.global_pool = nn.Identity()
    network = nn.Sequential(body, create_head(1280, loaders.c))
    learner = Learner(
        loaders,
        network,
        metrics=accuracy,
        splitter=lambda whole: [params(whole[0]), params(whole[1])],
    )
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, 2e-3)
    print(json.dumps({"accuracy": float(learner.recorder.values[-1][-1])}))
