"""The plugin contract: what a backbone is.

A plugin is any installed package with an entry point in one of two groups:

    [project.entry-points."tlkit.backbones"]
    my_net = "my_package:my_net"            # a `Backbone`
    [project.entry-points."tlkit.families"]
    my_hub = "my_package:my_hub"            # a `Family`, used as my_hub/NAME

Importing that package must be cheap: torch is imported inside `build` and `weights`.
The contract is these records and what `tlkit.testing` checks of them; nothing else is asked of a
plugin, and the engine looks at nothing that is not in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlkit.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    PackageFile,
    Source,
    StateDict,
    TorchHubFile,
    WeightFile,
    Weights,
    WeightSet,
    torchvision_sets,
    untrained,
    with_input,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Backbone",
    "Family",
    "InputSpec",
    "Network",
    "PackageFile",
    "Source",
    "StateDict",
    "TorchHubFile",
    "WeightFile",
    "WeightSet",
    "Weights",
    "torchvision_sets",
    "untrained",
    "with_input",
]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A built network in the parts that the engine joins, cuts and freezes."""

    features: nn.Module
    """(B, channels, H, W) -> feature map (B, F, h, w), or tokens (B, T, F).

    Where it is an `nn.Sequential` of exactly the stages in order, a frozen run of first stages is
    computed once and stored; otherwise a partly frozen `features` runs whole in every step.
    """
    neck: nn.Module
    """Feature map -> (B, D): pooling and flattening. Has no parameters that are to be trained."""
    classifier: nn.Module | None
    """(B, D) -> (B, K): all that stands behind the neck, BatchNorm and dropout too. Linear, or a
    Sequential that ends in one, for `--attach last`. None where the weights never had a trained
    one.
    """
    stages: Mapping[str, Sequence[nn.Module | nn.Parameter]]
    """Ordered names -> parts of `features`; together they hold its every parameter exactly once."""
    input: InputSpec
    """The input that the loaded weights expect."""
    why_no_classifier: str = ""
    """Where the weights have a trained classifier and `classifier` is None: why, in one clause."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One network with its weight sets."""

    name: str
    about: str
    """One line: what it is, with its paper."""
    weights: Callable[[], Sequence[WeightSet]]
    """The sets, the default first; at least one. Called only when the backbone was chosen."""
    build: Callable[[Weights], Network]
    """A new network with the given weights loaded; random where their state is None."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """An open set of backbones, used as FAMILY/NAME."""

    name: str
    about: str
    names: Callable[[], Iterable[str]]
    """Every name, for listing and for guessing what a mistyped one meant."""
    backbone: Callable[[str], Backbone]
    """The backbone of that name. Raises `UnknownName` for one that does not exist."""
    on_disk: Callable[[], Iterable[str]] = tuple
    """The names whose weights are on this disk, which `tlkit search` tries by itself."""
