"""The loop of the tutorials: torchvision's folder and transforms, the body frozen, SGD on the head.

After the transfer learning tutorial of PyTorch: the network in train mode, so that BatchNorm's
statistics drift; training and held-out images in every epoch.
"""

from __future__ import annotations

import json
import sys

import torch
from folders import datasets
from lite0 import with_frozen_body
from torch import nn
from torch.utils.data import DataLoader

if __name__ == "__main__":
    folder, epochs = sys.argv[1], int(sys.argv[2])
    train, test = datasets(folder)
    loaders = {
        True: DataLoader(train, batch_size=32, shuffle=True, num_workers=2),
        False: DataLoader(test, batch_size=32, num_workers=2),
    }
    network = with_frozen_body(len(train.classes))
    optimizer = torch.optim.SGD(network.get_classifier().parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for learning in (True, False):
            network.train(learning)
            right = 0
            for images, labels in loaders[learning]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(learning):
                    logits = network(images)
                    loss = criterion(logits, labels)
                    if learning:
                        loss.backward()
                        optimizer.step()
                right += int((logits.argmax(1) == labels).sum())
    print(json.dumps({"accuracy": right / len(test)}))
