"""Steps: long work that reports on its way and returns a result.

Such work is a generator: the caller shows the steps, or stops between any two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Progress of a long pass."""

    what: str
    done: int
    total: int


def passed(
    steps: Generator[Step, None, Result], change: Callable[[Step], Iterable[Step]]
) -> Generator[Step, None, Result]:
    """Pass on what `change` makes of each step; what the generator returns.

    It is closed with this one, or by what `change` raises.
    """
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            yield from change(step)


def finish(
    steps: Generator[Step, None, Result], each: Callable[[Step], object] = lambda step: None
) -> Result:
    """Run to the end, giving each step to `each`; what the generator returns.

    What `each` raises closes the generator, which may have something to put in order.
    """
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            each(step)
