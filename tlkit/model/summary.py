"""Summary: how large a network is, layer by layer, and what a pass through it costs.

In: the parts of a network that torch's meta device holds, which has shapes and no numbers. Out: a
`Summary`, whose rows add up to its totals.
Multiply-adds are those of convolutions and matrix products, attention's among them, as torch's own
`FlopCounterMode` counts them; it calls each of them two operations.
Not here: which parts (tlkit/sizing.py), printing (cli/summary.py).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tlkit.backbone import InputSpec


@dataclass(frozen=True, kw_only=True)
class Row:
    """A module. Its numbers are those that no row below it has: columns add up to the totals."""

    name: str
    """Its path: features.block1.0"""
    kind: str
    """Its class: Conv2d"""
    output: tuple[int, ...] | None
    """Shape, the images first; None for what is never called, or gives no tensor."""
    parameters: int
    trainable: int
    """Of the parameters."""
    multiply_adds: int
    """For one image."""

    @property
    def depth(self) -> int:
        """1 for features, 2 for features.block1."""
        return self.name.count(".") + 1

    @property
    def state(self) -> str:
        """trainable, frozen, partly; nothing without parameters."""
        if not self.parameters:
            return ""
        if not self.trainable:
            return "frozen"
        return "trainable" if self.trainable == self.parameters else "partly"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network in rows and totals; sizes in bytes, of numbers of 4 bytes."""

    input: tuple[int, int, int, int]
    """(B, channels, H, W)"""
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    """For one image."""
    input_bytes: int
    forward_bytes: int
    """What the modules put out; what is changed in place or only seen otherwise counts once."""
    backward_bytes: int
    """The gradients of that: nothing of what is frozen and stands before all that is trained."""
    parameter_bytes: int

    @property
    def frozen(self) -> int:
        """Parameters that are not trainable."""
        return self.parameters - self.trainable

    @property
    def total_bytes(self) -> int:
        """Input, activations, their gradients and parameters; no optimizer."""
        return self.input_bytes + self.forward_bytes + self.backward_bytes + self.parameter_bytes

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "input": list(self.input),
            "parameters": self.parameters,
            "trainable": self.trainable,
            "frozen": self.frozen,
            "multiply_adds": self.multiply_adds,
            "bytes": {
                "input": self.input_bytes,
                "forward": self.forward_bytes,
                "backward": self.backward_bytes,
                "parameters": self.parameter_bytes,
                "total": self.total_bytes,
            },
            "layers": [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "output": None if one.output is None else list(one.output),
                    "parameters": one.parameters,
                    "trainable": one.trainable,
                    "multiply_adds": one.multiply_adds,
                }
                for one in self.rows
            ],
        }


def summarise(
    parts: Mapping[str, nn.Module], spec: InputSpec, *, batch: int = 1, depth: int = 3
) -> Summary:
    """Pass B empty images through the parts, one behind the other, and count.

    The parts stand on the meta device. Raises whatever a network says to images that do not suit.
    """
    network = nn.Sequential(OrderedDict(parts)).eval()
    with torch.device("meta"):
        images = torch.zeros(batch, spec.channels, *spec.size)
    seen = _pass(network, images)
    parameters: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for name, one in network.named_parameters():
        row = _row(name.rpartition(".")[0], depth)
        parameters[row] += one.numel()
        trainable[row] += one.numel() if one.requires_grad else 0
    for name, count in seen.operations.items():
        operations[_row(name, depth)] += count
    rows = [
        Row(
            name=name,
            kind=type(module).__name__,
            output=seen.outputs.get(name),
            parameters=parameters[name],
            trainable=trainable[name],
            multiply_adds=operations[name] // 2 // batch,
        )
        for name, module in network.named_modules()
        if name and name == _row(name, depth)
    ]
    return Summary(
        input=(batch, spec.channels, *spec.size),
        rows=tuple(rows),
        parameters=sum(one.parameters for one in rows),
        trainable=sum(one.trainable for one in rows),
        multiply_adds=sum(one.multiply_adds for one in rows),
        input_bytes=_bytes(images),
        forward_bytes=sum(map(_bytes, seen.kept)),
        backward_bytes=sum(_bytes(one) for one in seen.kept if one.requires_grad),
        parameter_bytes=sum(map(_bytes, network.parameters())),
    )


def _row(module: str, depth: int) -> str:
    """The row that a module is listed in: its own, or that of a module around it."""
    return ".".join(module.split(".")[:depth])


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass(kw_only=True)
class _Seen:
    """What one pass has shown, by the modules' names."""

    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    operations: Counter[str] = field(default_factory=Counter)
    """Of the module's own, without those of modules inside it."""
    kept: list[Tensor] = field(default_factory=list)
    """Outputs that have memory of their own."""


def _pass(network: nn.Module, images: Tensor) -> _Seen:
    """Run the network, listening to every module. Gradients flow, so that outputs tell theirs."""
    seen = _Seen()
    counter = FlopCounterMode(display=False)
    # For each module that is running: operations before it, and those of modules inside it.
    running: list[list[int]] = []
    # The input's memory is counted by itself. What is held here keeps its identity.
    memory = {images.untyped_storage()._cdata: images}

    def enter(module: nn.Module, inputs: Any) -> None:
        running.append([counter.get_total_flops(), 0])

    def leave(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        before, inside = running.pop()
        whole = counter.get_total_flops() - before
        seen.operations[name] += whole - inside
        if running:
            running[-1][1] += whole
        for number, one in enumerate(_tensors(output)):
            if not number:
                seen.outputs[name] = tuple(one.shape)
            if (place := one.untyped_storage()._cdata) not in memory:
                memory[place] = one
                seen.kept.append(one)

    with ExitStack() as hooks, counter, torch.enable_grad():
        for name, module in network.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(partial(leave, name)))
        network(images)
    return seen


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a module gives: one, or several in a tuple, list or dictionary."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for one in output.values():
            yield from _tensors(one)
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors(one)
