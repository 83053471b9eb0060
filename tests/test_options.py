"""Options: limits hold for whoever makes the record."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit import options
from tlkit.cli.flags import flags_for
from tlkit.errors import OptionError, UnknownName
from tlkit.options import Checked, FitOptions, PredictOptions, SearchOptions, declared, option

RECORDS = [
    record
    for record in vars(options).values()
    if isinstance(record, type) and issubclass(record, Checked) and record is not Checked
]
ALL = [
    pytest.param(kind, one, id=f"{kind.__name__} {one.flag}")
    for kind in RECORDS
    for one in declared(kind)
]


@dataclass(frozen=True, kw_only=True)
class Small(Checked):
    """One option of every kind."""

    name: str = option("x", "A text.")
    kind: str = option("red", "A choice.", choices=("red", "green"))
    count: int = option(3, "A whole number.", min=1, max=9)
    rate: float = option(0.5, "A number.", above=0.0, max=2.0)
    fast: bool = option(False, "A switch.")


@pytest.mark.parametrize("kind", RECORDS)
def test_defaults_keep_their_own_limits(kind):
    assert kind().changed() == {}


@pytest.mark.parametrize(("kind", "one"), ALL)
def test_every_option_says_what_it_does_in_a_sentence(kind, one):
    assert one.limits.help.endswith((".", "]"))
    assert len(one.limits.help) > 10
    assert one.allowed
    assert one.flag.startswith("--")
    assert "_" not in one.flag


@pytest.mark.parametrize(("kind", "one"), ALL)
def test_every_limit_is_enforced_for_callers_from_python(kind, one):
    limits = one.limits
    wrong = [None, [], {}, b"", object() if one.type is str else "1"]
    wrong += [True, np.True_] if one.type is not bool and "switch" not in limits.takes else []
    wrong += [1, "yes"] if one.type is bool else []
    wrong += [1, 0.5, [1]] if one.type is str and not limits.takes else []
    wrong += [f"{limits.choices[0]}x", ""] if limits.choices else []
    wrong += [limits.min - 1] if limits.min is not None else []
    wrong += [limits.max + 1] if limits.max is not None else []
    wrong += [limits.above] if limits.above is not None else []
    wrong += [float("nan"), float("inf")] if one.type is float else []
    wrong += [1.0] if one.type is int else []
    for value in wrong:
        with pytest.raises(OptionError, match=f"{one.flag} ") as caught:
            kind(**{one.name: value})
        assert repr(value) in caught.value.found
        assert caught.value.expected.startswith(f"{one.flag}: ")


@pytest.mark.parametrize(("kind", "one"), ALL)
def test_what_stands_at_a_limit_is_allowed(kind, one):
    limits = one.limits
    ends = [end for end in (limits.min, limits.max) if end is not None]
    for value in [one.type(end) for end in ends] + list(limits.choices):
        assert getattr(kind(**{one.name: value}), one.name) == value


@settings(deadline=None)
@given(st.integers(), st.floats())
def test_a_number_is_taken_exactly_when_it_lies_within_the_limits(count, rate):
    fits = 1 <= count <= 9 and 0 < rate <= 2
    try:
        Small(count=count, rate=rate)
    except OptionError:
        assert not fits
    else:
        assert fits


def test_a_whole_number_will_do_where_a_number_is_asked_for():
    assert Small(rate=1).rate == 1


def test_all_faults_are_told_at_once():
    with pytest.raises(OptionError) as caught:
        Small(kind="blue", count=0, rate=-1.0, fast=1)
    assert len(caught.value.found.splitlines()) == len(caught.value.expected.splitlines()) == 4
    assert caught.value.about.startswith("4 options")
    assert "--name" not in str(caught.value)


def test_a_mistyped_choice_is_told_the_nearest():
    with pytest.raises(OptionError, match=r"red, green .*did you mean 'green'"):
        Small(kind="greem")


def test_what_is_allowed_is_told_in_words():
    words = {one.name: one.allowed for one in declared(Small)}
    assert words == {
        "name": "text",
        "kind": "red, green",
        "count": "whole number from 1 to 9",
        "rate": "number above 0 to 2",
        "fast": "yes, no",
    }


def test_a_record_is_made_of_a_mapping():
    assert Small.of({"count": 4}) == Small(count=4)
    with pytest.raises(OptionError):
        Small.of({"count": 40})


def test_an_option_that_does_not_exist_lists_those_that_do_and_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'count'") as caught:
        Small.of({"conut": 4})
    assert all(one.name in caught.value.expected for one in declared(Small))


def test_what_was_changed_is_what_differs_from_the_defaults():
    assert Small(count=4, kind="red").changed() == {"count": 4}
    assert Small.of(Small(count=4, fast=True).changed()) == Small(count=4, fast=True)


def test_an_option_without_effect_is_refused_only_where_it_was_set():
    Small(count=4).refuse(["rate", "fast"], because="no reason")
    with pytest.raises(OptionError, match="only with a fox") as caught:
        Small(count=4, rate=1.0).refuse(["rate", "fast"], because="only with a fox")
    assert caught.value.found == "--rate 1.0"


def test_a_record_cannot_be_changed_after_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Small().count = 100


def test_changing_a_copy_is_checked_again():
    with pytest.raises(OptionError):
        dataclasses.replace(Small(), count=100)


def whole_number(limits):
    """A number within the limits that is not the default's neighbour."""
    low = limits.min if limits.min is not None else 1 if limits.above is None else limits.above + 1
    return int(min(low + 2, limits.max if limits.max is not None else low + 2))


def share(limits):
    low = max(one for one in (limits.min, limits.above, 0.0) if one is not None)
    return low + 0.3 * min(1.0, (limits.max if limits.max is not None else low + 1) - low)


NATURAL = {
    "number": ("0.25", [0.25, np.float32(0.25), np.float64(0.25), Decimal("0.25"), Fraction(1, 4)]),
    "numbers": (
        "0.5,2",
        [[0.5, 2], (0.5, 2), [np.float32(0.5), np.int64(2)], [Decimal("0.5"), Fraction(2)]],
    ),
    "names": ("a,b", [["a", "b"], ("a", "b"), np.array(["a", "b"])]),
    "switch": ("mirror", [True, np.True_, np.array(True)]),
    "device": ("cuda:1", [torch.device("cuda", 1)]),
    "pattern": ("^(.)_", [re.compile("^(.)_")]),
    "time": ("90", [90, 90.0, np.int32(90), timedelta(minutes=1.5)]),
}


def natural(one):
    """A text of an option as the command line has it, and Python values that mean the same."""
    if one.limits.choices:
        return one.limits.choices[-1], [np.str_(one.limits.choices[-1])]
    if one.type is bool:
        other = not one.default
        return other, [other, np.bool_(other), np.array(other), torch.tensor(other)]
    if one.type is int:
        count = whole_number(one.limits)
        kinds = (np.int64, np.uint16, np.array, Decimal, Fraction, torch.tensor)
        return str(count), [kind(count) for kind in kinds if count < 1 << 15]
    if one.type is float:
        rate = share(one.limits)
        return f"{rate:g}", [float(f"{rate:g}"), Decimal(f"{rate:g}"), np.float32(f"{rate:g}")]
    takes = [natural for name in one.limits.takes for natural in NATURAL[name][1]]
    text = NATURAL[one.limits.takes[0]][0] if one.limits.takes else "some/where.txt"
    return text, [*takes, np.str_(text), Path(text)]


@pytest.mark.parametrize(("kind", "one"), ALL)
def test_a_text_and_what_is_natural_in_python_make_the_same_record(kind, one):
    text, others = natural(one)
    records = []

    @click.command()
    @flags_for(kind, into="record")
    def command(record):
        records.append(record)

    switch = [one.flag if text else f"--no-{one.flag[2:]}"] if one.type is bool else None
    done = CliRunner().invoke(command, switch or [one.flag, text])
    assert done.exit_code == 0, done.output
    (wanted,) = records
    for value in others:
        record = kind.of({one.name: value})
        assert record == wanted, value
        assert type(getattr(record, one.name)) is one.type


def test_numbers_and_lists_are_written_as_they_would_be_typed():
    assert PredictOptions(reject_below=np.float32(0.1)).reject_below == "0.1"
    assert PredictOptions(scales=range(256, 400, 64)).scales == "256,320,384"
    assert PredictOptions(scales=256).scales == "256"
    assert PredictOptions(scales=iter([256, 320])).scales == "256,320"
    assert PredictOptions(reject_unlike=np.float32(0.1)).reject_unlike == 0.1
    assert FitOptions(group_by=re.compile("a.b", re.I | re.S)).group_by == "(?is)a.b"
    assert SearchOptions(time=timedelta(hours=1)).time == "3600"
    assert PredictOptions(tta=False).tta == "none"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reject_below": True}, "text, a number"),
        ({"reject_below": [0.5]}, "text, a number"),
        ({"reject_below": float("nan")}, "text, a number"),
        ({"scales": [256, True]}, "a list of numbers"),
        ({"scales": [[256]]}, "a list of numbers"),
        ({"scales": []}, "a list of numbers"),
        ({"batch": 4.0}, "whole number from 1"),
        ({"batch": np.array([4])}, "whole number from 1"),
        ({"batch": Decimal("4.5")}, "whole number from 1"),
        ({"mirror": 1}, "True or False"),
        ({"device": 0}, "text, a torch.device"),
        ({"reject_unlike": np.True_}, "number from 0 to 1"),
        ({"engine": 3}, "text"),
    ],
    ids=str,
)
def test_what_is_of_another_type_is_refused_with_the_types_that_are_taken(given, words):
    with pytest.raises(OptionError) as caught:
        PredictOptions.of(given)
    assert words in caught.value.expected
