"""Hugging Face's Trainer on the same network, the body frozen."""

from __future__ import annotations

import json
import sys
import tempfile

import torch
from folders import datasets
from lite0 import with_frozen_body
from torch import nn
from transformers import Trainer, TrainingArguments


class Wrapped(nn.Module):
    """As Trainer wants it: a loss and logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def stacked(members: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, labels = zip(*members, strict=True)
    return {"images": torch.stack(images), "labels": torch.tensor(labels)}


if __name__ == "__main__":
    folder, epochs = sys.argv[1], int(sys.argv[2])
    train, test = datasets(folder)
    network = with_frozen_body(len(train.classes))
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(
            Wrapped(network),
            TrainingArguments(
                place,
                num_train_epochs=epochs,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=32,
                learning_rate=5e-3,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                dataloader_num_workers=2,
                remove_unused_columns=False,
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=train,
            eval_dataset=test,
            data_collator=stacked,
            compute_metrics=lambda found: {
                "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())
            },
        )
        trainer.train()
        print(json.dumps({"accuracy": trainer.evaluate()["eval_accuracy"]}))
