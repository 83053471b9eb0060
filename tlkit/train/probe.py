"""Probe: a linear head on a bank, solved.

In: a cut whose head alone is trained, the training bank, the validation bank. Out: an `Epoch` for
each penalty on a path from strong to weak, each solved from the one before.
Multinomial logistic regression with an L2 penalty on the weights (not the bias) has one minimum, so
there is no rate, no batch and no luck in it. Solver: L-BFGS (Liu and Nocedal 1989), scipy's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from tlkit.errors import TlkitError
from tlkit.model.assemble import Cut
from tlkit.model.device import Engine
from tlkit.train.bank import Bank
from tlkit.train.events import Epoch
from tlkit.train.judge import Judge

STRONGEST, WEAKEST = 10.0, 1e-4
"""Ends of the path. The head's `Scale` gives unit variance, so they suit any backbone."""


ONE_THREAD_PRODUCTS = 4_000_000
"""Multiplications in one evaluation of the loss below which one thread is the fastest."""


def penalties(count: int) -> list[float]:
    """`count` penalties, evenly spaced on a logarithmic scale, strongest first."""
    span = torch.log10(torch.tensor([STRONGEST, WEAKEST], dtype=torch.float64))
    at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return [float(10 ** (span[0] + (span[1] - span[0]) * one)) for one in at]


def solve(
    cut: Cut,
    engine: Engine,
    train: Bank,
    judge: Judge,
    *,
    path: int,
    class_weights: Tensor | None,
    smoothing: float,
) -> Iterator[Epoch]:
    """Solve the head for `path` penalties; after each record the head holds that solution."""
    scale, layer = cut.model.head.get_submodule("scale"), _linear(cut)
    with torch.no_grad():
        inputs = scale(train.values.flatten(0, 1).to(engine.device))
        labels = train.labels.repeat_interleave(train.views).to(engine.device)
        targets = _targets(labels, layer.out_features, class_weights, smoothing)
        layer.weight.zero_()
        layer.bias.zero_()
    for number, penalty in enumerate(penalties(path), start=1):
        started = time.perf_counter()
        with torch.no_grad(), _threads_for(inputs.numel() * layer.out_features):
            loss = _minimise(layer, inputs, targets, penalty)
        val = judge()
        yield Epoch(
            number=number,
            rate=penalty,
            train_loss=loss,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            val_balanced_accuracy=val.balanced_accuracy,
            wall_s=time.perf_counter() - started,
        )


def resolve(
    cut: Cut,
    engine: Engine,
    banks: Sequence[Bank],
    *,
    penalty: float,
    class_weights: Tensor | None,
    smoothing: float,
) -> None:
    """Solve the head again for one penalty, on all banks together; every image counts alike."""
    scale, layer = cut.model.head.get_submodule("scale"), _linear(cut)
    inputs, labels, weights = [], [], []
    for bank in banks:
        inputs.append(bank.values.flatten(0, 1))
        labels.append(bank.labels.repeat_interleave(bank.views))
        weights.append(torch.full((len(labels[-1]),), 1 / bank.views))
    with torch.no_grad(), _threads_for(sum(map(torch.numel, inputs)) * layer.out_features):
        every = torch.cat(labels).to(engine.device)
        each = torch.cat(weights).to(engine.device)
        targets = _targets(every, layer.out_features, class_weights, smoothing, each)
        _minimise(layer, scale(torch.cat(inputs).to(engine.device)), targets, penalty)


def _linear(cut: Cut) -> nn.Linear:
    layer = cut.model.head.get_submodule("layers")
    if not isinstance(layer, nn.Linear):
        raise TypeError("the recipe gives lbfgs linear heads only")
    return layer


def _minimise(
    layer: nn.Linear,
    inputs: Tensor,
    targets: Tensor,
    penalty: float,
) -> float:
    """Move the layer to the minimum; the mean loss there, without the penalty."""
    classes, width = layer.weight.shape
    plain = 0.0

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal plain
        packed = torch.from_numpy(flat).to(inputs).view(classes, width + 1)
        weight, bias = packed[:, :-1], packed[:, -1]
        logs = (inputs @ weight.T + bias).log_softmax(dim=1)
        plain = float(-(targets * logs).sum())
        # d loss / d logits = (the row's total target) * softmax - target
        slope = targets.sum(dim=1, keepdim=True) * logs.exp() - targets
        gradient = torch.cat(
            [slope.T @ inputs + penalty * weight, slope.sum(dim=0)[:, None]], dim=1
        )
        total = plain + penalty / 2 * float(weight.square().sum())
        return total, gradient.double().cpu().numpy().ravel()

    start = torch.cat([layer.weight, layer.bias[:, None]], dim=1).double().cpu().numpy().ravel()
    found = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B",
        options={"maxiter": 300, "maxcor": 10, "gtol": 1e-6, "ftol": 1e-9},
    )  # fmt: skip
    if not np.isfinite(found.fun):
        raise TlkitError(
            "the head cannot be solved",
            found="features that are not finite numbers",
            expected="numbers",
            do="try --precision fp32, or other weights",
        )
    loss_and_gradient(found.x)
    best = torch.from_numpy(found.x).to(layer.weight).view(classes, width + 1)
    layer.weight.copy_(best[:, :-1])
    layer.bias.copy_(best[:, -1])
    return plain


@contextlib.contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """One thread for small matrices: meeting the others takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < ONE_THREAD_PRODUCTS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _targets(
    labels: Tensor,
    classes: int,
    class_weights: Tensor | None,
    smoothing: float,
    each: Tensor | None = None,
) -> Tensor:
    """(N,) -> (N, C): what multiplies -log p, so that the sum is torch's cross-entropy.

    `each` (N,) weighs the rows; None means all alike.
    """
    weights = torch.ones(classes, device=labels.device) if class_weights is None else class_weights
    rows = weights[labels] if each is None else weights[labels] * each
    hard = torch.nn.functional.one_hot(labels, classes) * (1 - smoothing)
    soft = (hard + smoothing / classes) * weights
    return (soft if each is None else soft * each[:, None]) / rows.sum()
