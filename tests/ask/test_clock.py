"""Time that is asked for, and stopping when it is over."""

import pytest

from tlkit.ask.clock import Clock, OutOfTime, seconds_of
from tlkit.errors import OptionError


def test_a_time_has_a_unit_or_is_in_seconds():
    assert [seconds_of(one) for one in ("90s", "5m", "1.5h", "20")] == [90, 300, 5400, 20]


@pytest.mark.parametrize("text", ["", "0m", "-5m", "5 days", "m", "1e3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(OptionError, match="such as 90s"):
        seconds_of(text)


def test_steps_end_when_the_time_is_over():
    seen = []
    clock = Clock(1000)

    def steps():
        try:
            for number in range(5):
                if number == 2:
                    clock.seconds = 0.0
                yield number
        finally:
            seen.append("closed")

    with pytest.raises(OutOfTime):
        seen.extend(clock.within(steps()))
    assert seen == [0, 1, 2, "closed"]
    clock.seconds = 1000
    assert list(Clock(1000).within(iter_of(range(3)))) == [0, 1, 2]


def iter_of(values):
    yield from values
