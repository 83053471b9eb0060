"""Together: one gradient of several processes, each of which has a share of the batch.

In: the module that is trained. Out: the same module, whose gradients are those of all shares, and
whose BatchNorms learn from all of them: the steps are those that one process would take on whole
batches, but for rounding.
Gradients meet in torch's DistributedDataParallel. BatchNorms do by `Shared`, for torch's
SyncBatchNorm runs on GPUs only, and takes the place of modules, of which networks have their own
kinds.
Next door: loop.py (the steps), tlkit/ranks.py (the processes).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tlkit.ranks import here


@dataclass(frozen=True, kw_only=True)
class Learning:
    """A module whose gradients are those of all processes."""

    module: Callable[[Tensor], Tensor]
    """In training; in evaluation the plain module gives the same."""
    apart: Callable[[], AbstractContextManager[Any]]
    """A block in which gradients are not yet put together: more of the batch comes."""


def learning(module: nn.Module) -> Learning:
    """The module, for steps of all processes. Alone, it is as it was."""
    if not here().several:
        return Learning(module=module, apart=nullcontext)
    # Unused: a network may have parts that an image does not pass, or that do not learn yet.
    # Buffers: they are equal already, and stay so.
    shared = nn.parallel.DistributedDataParallel(
        module, find_unused_parameters=True, broadcast_buffers=False
    )

    def run(inputs: Tensor) -> Tensor:
        with Shared():
            found: Tensor = shared(inputs)
            return found

    return Learning(module=run, apart=shared.no_sync)


class Shared(TorchFunctionMode):
    """A block in which BatchNorms that learn see the shares of all processes as one batch."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Torch's, but for batch_norm in training."""
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))  # called as torch's own is
        return func(*args, **(kwargs or {}))


def _batch_norm(  # noqa: PLR0913 - as torch has it
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.batch_norm`, over the inputs (B, C, ...) of all processes.

    Ioffe and Szegedy 2015, arXiv 1502.03167; over processes: Peng et al. 2018, arXiv 1711.07240.
    """
    if not training:
        return functional.batch_norm(
            inputs, running_mean, running_var, weight, bias, training, momentum, eps
        )
    values = inputs.float()
    others = [0, *range(2, inputs.ndim)]
    shape = (1, -1, *[1] * (inputs.ndim - 2))
    count = values.new_tensor([values.numel() / values.shape[1]])
    torch.distributed.all_reduce(count)
    mean = _Sum.apply(values.sum(others)) / count
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_(unbiased.to(running_var), momentum)
    found = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        found = found * weight.view(shape)
    if bias is not None:
        found = found + bias.view(shape)
    like: Tensor = found.to(inputs.dtype)
    return like


class _Sum(torch.autograd.Function):
    """The sum over all processes; each gets the sum of what all of them want of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        found = values.clone()
        torch.distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> Tensor:
        return _Sum.forward(ctx, wanted[0])
