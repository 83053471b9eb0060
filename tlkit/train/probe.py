"""Probe: a linear head on a bank, solved.

In: a cut whose head alone is trained, the training bank, the validation bank. Out: an `Epoch` for
each penalty on a path from strong to weak, each solved from the one before.
Multinomial logistic regression with an L2 penalty on the weights (not the bias) has one minimum, so
there is no rate, no batch and no luck in it. Solver: L-BFGS (Liu and Nocedal 1989), scipy's.
Where there are far fewer images than features it works in the span of the images, see `_Span`;
where there are far more, in coordinates in which the loss is about as steep along each, see
`_coordinates`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from tlkit import cores
from tlkit.errors import TlkitError
from tlkit.model.assemble import Cut
from tlkit.model.device import Compute
from tlkit.ranks import here
from tlkit.train.bank import Bank
from tlkit.train.events import Epoch
from tlkit.train.judge import Judge

STRONGEST, WEAKEST = 10.0, 1e-4
"""Ends of the path. The head's `Scale` gives unit variance, so they suit any backbone."""


ONE_THREAD_PRODUCTS = 4_000_000
"""Multiplications in one evaluation of the loss below which one thread is the fastest."""

MOST_IN_MEMORY = 1 << 25
"""Numbers of inputs that are kept in memory between passes: 128 MiB."""

MOST_IN_SPAN = 512
"""Rows up to which the basis of their span costs less than it saves."""

MANY_ROWS = 8
"""Times as many rows as features from which other coordinates cost less than they save."""

SOME_ROWS = 4
"""Times as many rows as features that tell which."""


def penalties(count: int) -> list[float]:
    """`count` penalties, evenly spaced on a logarithmic scale, strongest first."""
    span = torch.log10(torch.tensor([STRONGEST, WEAKEST], dtype=torch.float64))
    at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return [float(10 ** (span[0] + (span[1] - span[0]) * one)) for one in at]


def solve(
    cut: Cut,
    compute: Compute,
    train: Bank,
    judge: Judge,
    *,
    path: int,
    class_weights: Tensor | None,
    smoothing: float,
) -> Generator[Epoch, None, None]:
    """Solve the head for `path` penalties; after each record the head holds that solution.

    The first process solves, on all cores of its machine; the others take what it has found.
    """
    scale, layer = cut.model.head.get_submodule("scale"), _linear(cut)
    with torch.no_grad():
        labels = train.labels.repeat_interleave(train.views).to(compute.device)
        targets = _targets(labels, layer.out_features, class_weights, smoothing)
        layer.weight.zero_()
        layer.bias.zero_()
        span = _span([train], scale, compute) if here().first else None
    for number, penalty in enumerate(penalties(path), start=1):
        started = time.perf_counter()
        with torch.no_grad():
            loss = _minimise(layer, span, targets, penalty)
        with threads_for(train.numbers * layer.out_features):
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
    compute: Compute,
    banks: Sequence[Bank],
    *,
    penalty: float,
    class_weights: Tensor | None,
    smoothing: float,
) -> None:
    """Solve the head again for one penalty, on all banks together; every image counts alike."""
    scale, layer = cut.model.head.get_submodule("scale"), _linear(cut)
    labels, weights = [], []
    for bank in banks:
        labels.append(bank.labels.repeat_interleave(bank.views))
        weights.append(torch.full((len(labels[-1]),), 1 / bank.views))
    with torch.no_grad():
        every = torch.cat(labels).to(compute.device)
        each = torch.cat(weights).to(compute.device)
        targets = _targets(every, layer.out_features, class_weights, smoothing, each)
        span = _span(banks, scale, compute) if here().first else None
        _minimise(layer, span, targets, penalty)


def _linear(cut: Cut) -> nn.Linear:
    layer = cut.model.head.get_submodule("layers")
    if not isinstance(layer, nn.Linear):
        raise TypeError("the recipe gives lbfgs linear heads only")
    return layer


@dataclass(frozen=True, kw_only=True)
class _Span:
    """The inputs (N, D) of a problem, or the same problem in R = N coordinates.

    The minimum's weights are sums of inputs: a part orthogonal to all of them would change no
    logit and cost penalty. In an orthonormal basis of what the inputs span, losses, penalties and
    gradients are those of the problem as a whole, and it is N / D times as large.
    """

    blocks: Callable[[], Iterator[Tensor]]
    """The inputs in pieces (n, R); without a basis (n, D). All there is, in every pass."""
    numbers: int
    """N * R"""
    basis: Tensor | None = None
    """(D, R), orthonormal columns: the inputs are those of the blocks times its transpose."""
    some: Tensor | None = None
    """(S, R) of the inputs, evenly taken, where there are many for each feature."""

    def inside(self, weight: Tensor) -> Tensor:
        """(C, D) -> (C, R)"""
        return weight if self.basis is None else weight.to(self.basis) @ self.basis

    def outside(self, weight: Tensor) -> Tensor:
        """(C, R) -> (C, D)"""
        return weight if self.basis is None else weight.to(self.basis) @ self.basis.T


def _span(banks: Sequence[Bank], scale: nn.Module, compute: Compute) -> _Span:
    """The scaled inputs of all banks: in memory, or read anew in every pass where they are many.

    In few coordinates where that is far smaller, and in double precision, on the CPU.
    """
    numbers = sum(bank.numbers for bank in banks)

    def blocks() -> Iterator[Tensor]:
        for bank in banks:
            for rows in bank.blocks():
                yield scale(rows.to(compute.device))

    if numbers > MOST_IN_MEMORY:
        return _Span(blocks=blocks, numbers=numbers, some=_some(banks, scale, compute))
    inputs = _gathered(blocks(), sum(bank.places.size for bank in banks))
    count, width = inputs.shape
    if count > MOST_IN_SPAN or count > width // 2 or not bool(inputs.isfinite().all()):
        some = _some(banks, scale, compute)
        return _Span(blocks=lambda: iter([inputs]), numbers=numbers, some=some)
    with threads_for(0):
        basis, corner = torch.linalg.qr(inputs.T.cpu().double())
        few = corner.T.contiguous()
    return _Span(blocks=lambda: iter([few]), numbers=few.numel(), basis=basis)


def _some(banks: Sequence[Bank], scale: nn.Module, compute: Compute) -> Tensor | None:
    """(S, D) of the scaled inputs; None where they are few or would be too many."""
    count, width = sum(len(bank.places) for bank in banks), math.prod(banks[0].shape)
    wanted = min(SOME_ROWS * width, MOST_IN_MEMORY // width)
    if count < MANY_ROWS * width or wanted < width:
        return None
    rows = [
        bank.at(np.linspace(0, len(bank.places) - 1, share).round().astype(np.int64), 0)
        for bank in banks
        if (share := wanted * len(bank.places) // count)
    ]
    return torch.cat([scale(one.to(compute.device)) for one in rows])


@dataclass(frozen=True, kw_only=True)
class _Coordinates:
    """Of a layer's weights (C, R) and bias (C,), packed as (C, R + 1): what L-BFGS steps in."""

    back: Tensor
    """(R, R): weights are coordinates times it."""
    forth: Tensor
    """(R, R), its inverse."""
    unit: float
    """What a bias is in units of."""

    def of(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight @ self.forth.to(weight), bias[:, None] / self.unit], dim=1)

    def weights(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        return packed[:, :-1] @ self.back.to(packed), packed[:, -1] * self.unit

    def gradient(self, weight: Tensor, bias: Tensor) -> Tensor:
        """By the coordinates, of those by weight and bias."""
        return torch.cat([weight @ self.back.T, bias[:, None] * self.unit], dim=1)


class _Plain:
    """The weights themselves."""

    def of(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight, bias[:, None]], dim=1)

    def weights(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        return packed[:, :-1], packed[:, -1]

    gradient = of


def _coordinates(span: _Span, layer: nn.Linear, penalty: float) -> _Coordinates | _Plain:
    """Where there are many rows for each feature, those in which a step helps along every
    direction alike.

    In them the Hessian of the loss, estimated from some rows at where the layer is, is about the
    unit matrix (subsampled Newton: Erdogdu and Montanari 2015, arXiv 1508.02810). Each row counts
    by the mean variance of its classes. L-BFGS then needs about half as many passes: 303 for 551
    over 20 penalties with two classes of CIFAR-10, 907 for 1517 with ten.
    """
    if span.some is None:
        return _Plain()
    p = layer(span.some).softmax(dim=1)
    # Of two classes one is what the other is not: their weights move together.
    variances = (p * (1 - p)).mean(dim=1) * (2 if len(layer.weight) == 2 else 1)
    each = span.some * (variances[:, None] / len(span.some)).sqrt()
    hessian = each.T @ each
    hessian.diagonal().add_(penalty)
    root, failed = torch.linalg.cholesky_ex(hessian)
    if failed or not bool(root.isfinite().all()):
        return _Plain()
    one = torch.eye(len(root), dtype=root.dtype, device=root.device)
    back = torch.linalg.solve_triangular(root, one, upper=False)
    return _Coordinates(back=back, forth=root, unit=float(variances.mean()) ** -0.5)


def _gathered(blocks: Iterator[Tensor], count: int) -> Tensor:
    """Blocks (n, D) of `count` rows in all as one, which are never there twice."""
    first = next(blocks)
    inputs = first.new_empty(count, first.shape[1])
    done = 0
    for block in itertools.chain([first], blocks):
        inputs[done : done + len(block)] = block
        done += len(block)
    return inputs


def _minimise(layer: nn.Linear, span: _Span | None, targets: Tensor, penalty: float) -> float:
    """Move the layer to the minimum; the mean loss there, without the penalty.

    `span` is the first process's, and None elsewhere.
    """
    loss = 0.0
    if span is not None:
        with threads_for(span.numbers * layer.out_features):
            loss = _minimum(layer, span, targets, penalty)
    loss, weight, bias = here().agree((loss, layer.weight.cpu(), layer.bias.cpu()))
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return loss


def _minimum(layer: nn.Linear, span: _Span, targets: Tensor, penalty: float) -> float:
    """What `_minimise` does, here."""
    like = next(span.blocks())[:1]
    targets = targets.to(like)
    classes, width = len(layer.weight), like.shape[1]
    coordinates = _coordinates(span, layer, penalty)
    plain = 0.0

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal plain
        packed = torch.from_numpy(flat).to(like).view(classes, width + 1)
        weight, bias = coordinates.weights(packed)
        by_weight, by_bias = penalty * weight, torch.zeros_like(bias)
        plain, done = 0.0, 0
        for inputs in span.blocks():
            target = targets[done : done + len(inputs)]
            done += len(inputs)
            logs = (inputs @ weight.T + bias).log_softmax(dim=1)
            plain -= float((target * logs).sum())
            # d loss / d logits = (the row's total target) * softmax - target
            slope = target.sum(dim=1, keepdim=True) * logs.exp() - target
            by_weight += slope.T @ inputs
            by_bias += slope.sum(dim=0)
        total = plain + penalty / 2 * float(weight.square().sum())
        gradient = coordinates.gradient(by_weight, by_bias)
        return total, gradient.cpu().double().numpy().ravel()

    from scipy.optimize import minimize

    start = _start(coordinates, span, layer)
    found = minimize(
        loss_and_gradient, start.numpy().ravel(), jac=True, method="L-BFGS-B",
        # The sums are of single precision: for smaller gains, half of all passes went into
        # searching along lines that rounding bends.
        options={"maxiter": 300, "maxcor": 10, "gtol": 1e-6, "ftol": 1e-7},
    )  # fmt: skip
    if not np.isfinite(found.fun):
        raise TlkitError(
            "the head cannot be solved",
            found="features that are not finite numbers",
            expected="numbers",
            do="try --precision fp32, or other weights",
        )
    loss_and_gradient(found.x)
    weight, bias = coordinates.weights(torch.from_numpy(found.x).view(classes, width + 1))
    layer.weight.copy_(span.outside(weight).to(layer.weight.dtype))
    layer.bias.copy_(bias.to(layer.bias.dtype))
    return plain


def _start(coordinates: _Coordinates | _Plain, span: _Span, layer: nn.Linear) -> Tensor:
    """Where the layer is, in double precision on the CPU: not every device has that."""
    weight = span.inside(layer.weight).cpu().double()
    return coordinates.of(weight, layer.bias.cpu().double())


@contextlib.contextmanager
def threads_for(products: int) -> Iterator[None]:
    """One thread for small matrices: meeting the others takes longer than the work.

    `products` is the number of multiplications in the largest of them.
    """
    before = torch.get_num_threads()
    # Other processes of this machine wait meanwhile.
    many = cores.every() if here().several else before
    torch.set_num_threads(1 if products < ONE_THREAD_PRODUCTS else many)
    try:
        # scipy's L-BFGS solves systems of a dozen numbers, at a hundred times their price in more.
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _blas() -> ThreadpoolController:
    """The libraries for linear algebra that numpy and scipy have loaded by now."""
    return ThreadpoolController()


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
