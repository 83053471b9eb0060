"""Optimizer: which parameter moves at which rate, and by which rule.

In: a cut model and the options. Out: a torch optimizer whose groups carry their peak rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tlkit.model.assemble import Cut, parameters_of
from tlkit.options import FitOptions


def optimizer_for(cut: Cut, options: FitOptions, name: str) -> torch.optim.Optimizer:
    """Adamw, adam or sgd, with rates for the head, the classifier that is kept, and each stage.

    Biases and norms are not decayed. `peak` in a group is its rate at a schedule factor of 1.
    """
    rows: list[dict[str, Any]] = []
    for rate, members in _by_rate(cut, options):
        # A group learns as a whole or, before it is unfrozen, not at all.
        for decay, kept in ((options.weight_decay, _matrices), (0.0, _vectors)):
            if chosen := [one for one in members if kept(one)]:
                rows.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    # Fused: one pass over the numbers in place of a dozen.
    if name == "sgd":
        return torch.optim.SGD(rows, lr=options.lr, momentum=options.momentum, fused=True)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(rows, lr=options.lr, fused=True)


def _by_rate(cut: Cut, options: FitOptions) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """The trained parameters of each stage, of the classifier that is kept, and of the head.

    The last stage has --backbone-lr, each before it --stage-decay times that of its successor;
    Howard and Ruder 2018 (arXiv 1801.06146) call this discriminative fine-tuning.
    """
    rate = options.backbone_lr
    seen: set[int] = set()  # stages may share parameters
    for members in reversed(cut.open_stages().values()):
        # By identity: parameters compare by their numbers.
        found = {id(one): one for part in members for one in parameters_of(part)}
        stage = [one for key, one in found.items() if one.requires_grad and key not in seen]
        seen |= found.keys()
        yield rate, stage
        rate *= options.stage_decay
    for part, rate in ((cut.model.body, options.backbone_lr), (cut.model.head, options.lr)):
        yield rate, [one for one in part.parameters() if one.requires_grad]


def _matrices(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1


def _vectors(parameter: nn.Parameter) -> bool:
    return parameter.ndim <= 1
