"""Options: limits hold for whoever makes the record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.errors import OptionError, UnknownName
from tlkit.options import Checked, FitOptions, PredictOptions, declared, option

RECORDS = [FitOptions, PredictOptions]
ALL = [pytest.param(kind, one, id=one.flag) for kind in RECORDS for one in declared(kind)]


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
    assert one.limits.help.endswith(".")
    assert len(one.limits.help) > 10
    assert one.allowed
    assert one.flag.startswith("--")
    assert "_" not in one.flag


@pytest.mark.parametrize(("kind", "one"), ALL)
def test_every_limit_is_enforced_for_callers_from_python(kind, one):
    limits = one.limits
    wrong = [None, [], b"", 1 if one.type is str else "one"]
    wrong += [True] if one.type is not bool else [1, "yes"]
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
