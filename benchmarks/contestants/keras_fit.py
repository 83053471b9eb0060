"""Keras on its torch backend: the same network as a frozen layer, a dense layer behind it, Adam.

After the transfer learning guide of Keras: the body in inference mode, dropout 0.2, Adam 1e-3. The
images are those of the tutorials, by torch's loader, which Keras takes; its own reads through
TensorFlow.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from folders import datasets
from lite0 import lite0
from torch.utils.data import DataLoader


class Frozen(keras.Model):
    """Images -> logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = keras.layers.TorchModuleWrapper(lite0(0).requires_grad_(False))
        self.dropout = keras.layers.Dropout(0.2)
        self.head = keras.layers.Dense(classes)

    def call(self, images: torch.Tensor, training: bool = False) -> torch.Tensor:
        return self.head(self.dropout(self.body(images, training=False), training=training))


if __name__ == "__main__":
    folder, epochs = sys.argv[1], int(sys.argv[2])
    train, test = datasets(folder)
    network = Frozen(len(train.classes))
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    done = network.fit(
        DataLoader(train, batch_size=32, shuffle=True, num_workers=2),
        epochs=epochs,
        shuffle=False,  # the loader does
        validation_data=DataLoader(test, batch_size=32, num_workers=2),
        verbose=0,
    )
    print(json.dumps({"accuracy": done.history["val_accuracy"][-1]}))
