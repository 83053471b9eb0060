"""Heads: what is put on the backbone's vector.

In: D and C. Out: an `nn.Module` (B, D) -> (B, C). A head is a function and a row in `HEADS`, or in
the entry points `tlkit.heads` of an installed package.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit import plugins
from tlkit.errors import TlkitError, briefly, pick, raise_machine_error
from tlkit.plugins import exits_as_errors
from tlkit.rows import Rows, failed


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """A row of the table."""

    about: str
    make: Callable[[int, int, int, float], nn.Module]
    """(D, C, hidden, dropout) -> module."""
    uses: frozenset[str] = frozenset()
    """Which of `hidden` and `dropout` it has."""
    convex: bool = False
    """Whether lbfgs can solve it: it is an `nn.Linear` with a bias, and nothing else."""


class Scale(nn.Module):
    """(B, D) -> (B, D): (x - shift) * factor, the identity until `fit_to` has seen features.

    The factor divides by the square root of the standard deviation, half-way between raw features
    (better with few images, where whitening amplifies noise) and standardised ones (better with
    many); then all of it by one number, so that penalties and rates suit every backbone. What the
    deviation is from differs with many images (`fit_to`) and with few (`fit_to_few`).
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("factor", torch.ones(width))

    def forward(self, vectors: Tensor) -> Tensor:
        return (vectors - self.shift) * self.factor

    def fit_to(self, parts: Iterable[Tensor]) -> None:
        """Take shift and factor from features, in parts (n, D): there may be more than memory."""
        count, total, squares, origin = 0, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0)
        for part in parts:
            # In double precision, and from near the mean: squares of what is far off lose digits.
            if not count:
                origin = part.double().mean(dim=0)
            off = part.double() - origin
            total, squares = total + off.sum(dim=0), squares + off.square().sum(dim=0)
            count += len(part)
        mean = origin + total / count
        self._take(mean, squares / count - (total / count).square())

    def fit_to_few(self, vectors: Tensor, labels: Tensor) -> None:
        """The same from so few features (N, D) that their classes (N,) matter.

        Few images of few classes vary most in what tells the classes apart, which is not to be made
        small: the deviation is that within the classes. As if there were two images more, one with
        the deviation of all images, one with the mean of that over the features: where each class
        has one image there is nothing else.
        """
        rows, classes = vectors.double(), torch.nn.functional.one_hot(labels).double()
        mean = rows.mean(dim=0)
        variance = (rows - mean).square().mean(dim=0)
        counts = classes.sum(dim=0)
        means = (classes.T @ rows) / counts.clamp_min(1.0)[:, None]
        within = (rows - means[labels]).square().sum(dim=0) + variance + variance.mean()
        free = len(rows) - int((counts > 0).sum()) + 2
        self._take(mean, variance, (within / free).where(variance > 1e-12 * variance.max(), 0.0))

    def _take(self, mean: Tensor, variance: Tensor, by: Tensor | None = None) -> None:
        """Shift by the mean (D,); scale by the variance `by` to unit variance in all."""
        std = variance.clamp_min(0.0).sqrt()
        by = std if by is None else by.sqrt()
        # A feature that never varies says nothing: its factor is zero, not infinite.
        factor = torch.where(by > 1e-6 * by.max(), by.clamp_min(1e-30).rsqrt(), 0.0)
        overall = (std * factor).square().mean().sqrt()
        self.shift.copy_(mean)
        self.factor.copy_(factor / overall if overall > 0 else torch.ones_like(factor))


SOLVABLE = "an nn.Linear with a bias, or convex=False"


def is_solvable(layers: nn.Module) -> bool:
    """Whether the layers of a head are all that lbfgs knows how to solve."""
    return type(layers) is nn.Linear and layers.bias is not None


def make_head(name: str, width: int, classes: int, hidden: int, dropout: float) -> nn.Module:
    """A head of that name behind a `Scale`: (B, D) -> (B, C).

    Raises `UnknownName`, and `PluginError` for an installed head that is none.
    """
    kind = pick(HEADS, name, "head")
    if name not in HEADS.own:
        _hold(kind, name, width, classes)
    layers = kind.make(width, classes, hidden, dropout)
    return nn.Sequential(OrderedDict(scale=Scale(width), layers=layers))


def _hold(kind: HeadKind, name: str, width: int, classes: int) -> None:
    """Raise `PluginError` for a head that fails or gives something else."""
    try:
        with torch.random.fork_rng(devices=[]), exits_as_errors():
            layers = kind.make(width, classes, 8, 0.5).eval()
            given = layers(torch.zeros(2, width))
    except TlkitError:
        raise
    except Exception as error:  # a stranger's code
        raise_machine_error(error)
        raise failed("head", name, briefly(error), "layers (B, D) -> (B, C)") from error
    if kind.convex and not is_solvable(layers):
        raise failed("head", name, f"convex, and a {type(layers).__name__}", SOLVABLE)
    shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
    if shape != (2, classes):
        raise failed("head", name, f"{shape} of (2, {width})", f"(2, {classes})")


def _linear(width: int, classes: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Linear(width, classes)


def _mlp(width: int, classes: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    )


def _vgg(width: int, classes: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def _bn_mlp(width: int, classes: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(width), nn.Dropout(dropout / 2), nn.Linear(width, hidden), nn.ReLU(),
        nn.BatchNorm1d(hidden), nn.Dropout(dropout), nn.Linear(hidden, classes),
    )  # fmt: skip


OWN: Mapping[str, HeadKind] = {
    "linear": HeadKind(about="D -> C", make=_linear, convex=True),
    "mlp": HeadKind(
        about="D -> hidden, ReLU, dropout -> C", make=_mlp, uses=frozenset({"hidden", "dropout"})
    ),
    "vgg": HeadKind(
        about="D -> hidden -> hidden -> C with ReLU and dropout, as in the VGG paper",
        make=_vgg,
        uses=frozenset({"hidden", "dropout"}),
    ),
    "bn-mlp": HeadKind(
        about="BatchNorm, dropout/2, D -> hidden, ReLU, BatchNorm, dropout -> C, as in fastai",
        make=_bn_mlp,
        uses=frozenset({"hidden", "dropout"}),
    ),
}

HEADS = Rows(HeadKind, plugins.HEADS, OWN)
