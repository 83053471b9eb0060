"""Paired: a false alarm in twenty, and intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tlkit.ask.paired import accuracy_interval, holm, images_needed, interval, mcnemar


def discordant(rng, images, first, second, both=0.6):
    """How many of the images are right by the one alone, and by the other alone."""
    shares = [first, second, both, 1 - first - second - both]
    one, other, *_ = rng.multinomial(images, shares)
    return int(one), int(other)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_without_a_difference_false_alarms_are_at_most_one_in_twenty(share):
    """By the law of the test itself: over all that may come, with their chances."""
    alarm = 0.0
    for count in range(200):
        chance = binom.pmf(count, 400, 2 * share)
        if chance > 1e-9:
            false = sum(
                binom.pmf(one, count, 0.5)
                for one in range(count + 1)
                if mcnemar(one, count - one) < 0.05
            )
            alarm += chance * false
    assert 0.005 < alarm <= 0.05


def test_a_real_difference_is_found():
    rng = np.random.default_rng(0)
    found = [mcnemar(*discordant(rng, 600, 0.10, 0.03)) < 0.05 for _ in range(100)]
    assert np.mean(found) > 0.95


def test_nobody_right_alone_is_no_difference():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(3, 9) == mcnemar(9, 3)


def test_intervals_hold_the_true_difference_nineteen_times_in_twenty():
    """400 folders of images; the share of intervals that hold the truth has a spread of 1.1 %."""
    rng = np.random.default_rng(1)
    accuracy, loss = 0, 0
    for number in range(400):
        one, other = discordant(rng, 400, 0.08, 0.05)
        differences = np.concatenate([np.ones(one), -np.ones(other), np.zeros(400 - one - other)])
        low, high = interval(differences, seed=number)
        accuracy += low <= 0.03 <= high
        # Skewed, as losses are.
        low, high = interval(rng.exponential(1.0, 400) - rng.exponential(0.9, 400), seed=number)
        loss += low <= 0.1 <= high
    assert 0.915 <= accuracy / 400 <= 0.985
    assert 0.915 <= loss / 400 <= 0.985


@pytest.mark.parametrize(
    ("images", "one", "other"), [(30, 0.06, 0.03), (50, 0.04, 0.02), (400, 0.08, 0.05)]
)
def test_an_interval_of_accuracies_holds_where_few_images_tell_two_heads_apart(images, one, other):
    """By the law of what may come: a multinomial, summed over all of it."""
    held = 0.0
    for first in range(images + 1):
        chance = binom.pmf(first, images, one)
        for second in range(images + 1 - first):
            both = chance * binom.pmf(second, images - first, other / (1 - one))
            if both < 1e-9:
                continue
            low, high = accuracy_interval(first, second, images)
            held += both * (low <= one - other <= high)
    assert 0.94 <= held <= 0.995


def test_an_interval_of_accuracies_is_never_without_a_width():
    low, high = accuracy_interval(0, 0, 10)
    assert low < 0 < high
    assert accuracy_interval(3, 9, 40) == pytest.approx(
        [-one for one in accuracy_interval(9, 3, 40)[::-1]]
    )


def test_an_interval_is_that_of_the_seed_and_of_no_other_thing():
    differences = np.random.default_rng(0).normal(size=50)
    assert interval(differences, seed=3) == interval(differences, seed=3)
    assert interval(differences, seed=3) != interval(differences, seed=4)
    assert interval(np.zeros(10), seed=0) == (0.0, 0.0)
    assert interval(np.ones(1), seed=0) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_bonferronis(values):
    found = holm(values)
    for plain, one in zip(values, found, strict=True):
        assert plain <= one <= min(1, plain * len(values)) + 1e-12
    order = np.argsort(values)
    assert (np.diff(np.array(found)[order]) >= 0).all()
    assert found[int(np.argmin(values))] == pytest.approx(min(1, min(values) * len(values)))


def test_holm_keeps_the_chance_of_any_false_alarm_below_one_in_twenty():
    rng = np.random.default_rng(2)
    alarms = [min(holm(rng.uniform(size=3).tolist())) < 0.05 for _ in range(4000)]
    assert np.mean(alarms) < 0.06


def test_with_so_many_images_the_difference_is_found_four_times_in_five():
    needed = images_needed(16, 6, 200)
    rng = np.random.default_rng(4)
    found = [mcnemar(*discordant(rng, needed, 0.08, 0.03)) < 0.05 for _ in range(600)]
    assert 0.7 < np.mean(found) < 0.9
    assert images_needed(5, 5, 100) is None
    assert images_needed(16, 6, 200, tests=3) > needed
