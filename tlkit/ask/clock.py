"""Clock: how long a question may take, and stopping when that is over.

In: `--time`. Out: seconds that are left. Work is a generator of steps, and can be stopped between
any two of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator

from tlkit.errors import OptionError
from tlkit.steps import Result, Step, passed

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class OutOfTime(Exception):
    """The time was over before the work was."""


class Clock:
    """Seconds that are left from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def gone(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds, below 0 when the time is over."""
        return self.seconds - self.gone

    def within(
        self, steps: Generator[Step, None, Result], *, keep: float = 0.0
    ) -> Generator[Step, None, Result]:
        """The same steps, until only `keep` seconds are left: then `OutOfTime` is raised."""

        def in_time(step: Step) -> Iterator[Step]:
            yield step
            if self.left <= keep:
                raise OutOfTime

        return passed(steps, in_time)


def seconds_of(text: str) -> float:
    """90s, 5m, 1.5h, or a number of seconds. Raises `OptionError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise OptionError(
            "the time cannot be used",
            found=f"--time {text}",
            expected="a number above 0 with s, m or h behind it, such as 90s, 5m or 1h",
            do="correct it",
        )
    return seconds
