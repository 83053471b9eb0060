"""Ranks: this process among those of one job, as torchrun has started them.

In: torchrun's environment. Out: `here()`, by which the processes share work out and agree.
Every process runs the same program on the same folder. What only one can do (solve a head, write a
file, be heard) the first does; what is found out in parts is put together for all, so that each
goes the same way. A process that nobody started beside others is the first of one, and for it
nothing here costs anything.
Not here: gradients (train/together.py), starting processes (launch.py).
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a process waits for another. That one of them has died torchrun notices at once; and one
may solve a head, or read a bank, for hours."""


LOST = 3
"""Exit status of a process that has lost another."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The place of a process in its job."""

    rank: int = 0
    """From 0."""
    size: int = 1
    """Processes in the job."""
    local_rank: int = 0
    """On this machine, from 0."""
    local_size: int = 1
    """Processes on this machine."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and is heard."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def part(self, count: int) -> slice:
        """The share of this process of `count` things in order; shares differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def agree(self, value: T, of: int = 0) -> T:
        """What the first process, or the one of that rank, has given here."""
        if not self.several:
            return value
        import torch
        from torch import distributed

        _join()
        box: list[Any] = [value if self.rank == of else None]
        distributed.broadcast_object_list(box, src=of, device=torch.device("cpu"))
        found: T = box[0]
        return found

    def gather(self, value: T) -> list[T]:
        """What each process has given here, in the order of their ranks."""
        if not self.several:
            return [value]
        from torch import distributed

        _join()
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def sums(self, *values: float) -> list[float]:
        """The sum of each over all processes."""
        if not self.several:
            return list(values)
        import torch
        from torch import distributed

        _join()
        # In double precision, and in one order: every process gets the same bits.
        box = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(box)
        found: list[float] = box.tolist()
        return found

    def wait(self) -> None:
        """Until every process is here."""
        self.gather(None)

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process goes through the block alone, then the others.

        What is refused in it, is so by the first, and once.
        """
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def here() -> Ranks:
    """The place of this process: what torchrun has given it, but `alone`."""
    return Ranks() if _ALONE else _given()


_ALONE: list[bool] = []


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In the block this process works as if nobody had started others beside it.

    For what the first does while the others wait to be told.
    """
    _ALONE.append(True)
    try:
        yield
    finally:
        _ALONE.pop()


@cache
def _given() -> Ranks:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    return Ranks(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def began_again() -> bool:
    """Whether torchrun has started the processes once more, for one of them had died."""
    return _starts() > 0


def _starts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def lost(error: BaseException) -> bool:
    """Whether it tells that another process of the job has gone."""
    told = str(error)
    return here().several and any(word in told for word in ("gloo", "NCCL", "Connection closed"))


@cache
def _join() -> None:
    """Meet the other processes."""
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # Where the processes were started again, torchrun's store still has the addresses of those
    # that were there before.
    store = distributed.distributed_c10d.PrefixStore(f"tlkit/{_starts()}", store)
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    # Its threads must not outlive what they use.
    atexit.register(distributed.destroy_process_group)
