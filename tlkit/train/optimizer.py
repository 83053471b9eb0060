"""Optimizer: which parameter moves at which rate, and by which rule.

In: a cut model and the options. Out: a torch optimizer whose groups carry their peak rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tlkit.model.assemble import Cut
from tlkit.options import FitOptions


def optimizer_for(cut: Cut, options: FitOptions, name: str) -> torch.optim.Optimizer:
    """Adamw, adam or sgd, with rates for the head, the classifier that is kept, and each stage.

    Biases and norms are not decayed. `peak` in a group is its rate at a schedule factor of 1.
    """
    rates = stage_rates(cut, options)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in cut.model.named_parameters():
        if parameter.requires_grad:
            head = parameter_name.startswith("head.")
            rate = options.lr if head else rates.get(id(parameter), options.backbone_lr)
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    rows = [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    # Fused: one pass over the numbers in place of a dozen.
    if name == "sgd":
        return torch.optim.SGD(rows, lr=options.lr, momentum=options.momentum, fused=True)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(rows, lr=options.lr, fused=True)


def stage_rates(cut: Cut, options: FitOptions) -> Mapping[int, float]:
    """Peak rates of the parameters of unfrozen stages, by `id`: the last stage has --backbone-lr,
    each one before it --stage-decay times that of its successor.

    Howard and Ruder 2018 (arXiv 1801.06146) call this discriminative fine-tuning.
    """
    rates: dict[int, float] = {}
    rate = options.backbone_lr
    for members in reversed(cut.open_stages().values()):
        for one in members:
            for parameter in one.parameters() if isinstance(one, nn.Module) else (one,):
                rates[id(parameter)] = rate
        rate *= options.stage_decay
    return rates
