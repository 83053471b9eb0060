"""fastai's get_preds on a test set of files."""

from __future__ import annotations

import json
import sys

from fastai.vision.all import ImageDataLoaders, Learner, Normalize, Resize, get_image_files
from lite0 import MEAN, PX, STD, lite0

if __name__ == "__main__":
    folder, learnt_from = sys.argv[1:3]
    loaders = ImageDataLoaders.from_folder(
        learnt_from, train="train", valid="test", bs=64, num_workers=2,
        item_tfms=Resize(PX), batch_tfms=[Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    learner = Learner(loaders, lite0(loaders.c), loss_func=lambda out, labels: out.sum())
    files = get_image_files(folder)
    with learner.no_bar(), learner.no_logging():
        found, _ = learner.get_preds(dl=loaders.test_dl(files, num_workers=2))
    print(json.dumps({"images": len(found)}))
