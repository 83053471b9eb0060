"""Calibration: temperatures that are known, thresholds that can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.calibration import (
    MOST_STEPS,
    calibration_of,
    temperature_of,
    tempered,
    threshold_for,
    thresholds_of,
)


def drawn(count: int, classes: int, temperature: float, seed: int = 0):
    """Probabilities, and labels drawn from what they are at that temperature."""
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(count, classes))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    true = tempered(probabilities, temperature).cumsum(axis=1)
    labels = (true < random.random((count, 1))).sum(axis=1).clip(max=classes - 1)
    return probabilities, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature):
    found = temperature_of(*drawn(4000, 5, temperature))
    assert found == pytest.approx(temperature, rel=0.1)


def test_no_temperature_near_it_is_likelier():
    probabilities, labels = drawn(300, 3, 2.0)
    found = temperature_of(probabilities, labels)

    def cost(one):
        true = tempered(probabilities, one)[np.arange(len(labels)), labels]
        return -np.log(true).sum() + np.log(one) ** 2 / (2 * 0.5**2)

    assert cost(found) <= min(cost(found * 1.01), cost(found / 1.01))


@pytest.mark.parametrize("classes", [2, 10])
def test_few_images_that_are_all_right_say_little(classes):
    labels = np.arange(6) % classes
    sure = np.full((6, classes), 0.1 / (classes - 1))
    sure[np.arange(6), labels] = 0.9
    assert 0.3 < temperature_of(sure, labels) < 1


def test_answers_that_were_certain_have_a_temperature_too():
    never = np.eye(3)[[0, 1, 2, 0]]
    assert np.isfinite(temperature_of(never, np.array([0, 1, 2, 1])))
    assert np.isfinite(tempered(never, 2.0)).all()


@given(st.integers(0, 50), st.floats(0.1, 10))
def test_the_order_of_the_classes_stays_and_the_sum_is_one(seed, temperature):
    probabilities, _ = drawn(5, 4, 1.0, seed)
    after = tempered(probabilities, temperature)
    assert np.allclose(after.sum(axis=1), 1)
    assert (np.argsort(after) == np.argsort(probabilities)).all()


def test_it_is_the_softmax_of_the_divided_logits():
    logits = np.random.default_rng(0).normal(size=(6, 3))
    soft = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cooler = np.exp(logits / 1.7) / np.exp(logits / 1.7).sum(axis=1, keepdims=True)
    assert np.allclose(tempered(soft, 1.7), cooler)


def pairs(*sure_and_right):
    """Probabilities of two classes and labels, from (how sure, whether right)."""
    sure = np.array([one for one, _ in sure_and_right])
    labels = np.array([0 if right else 1 for _, right in sure_and_right])
    return np.stack([sure, 1 - sure], axis=1), labels


def test_thresholds_are_those_that_answer_most_for_their_precision():
    found = thresholds_of(
        *pairs((0.95, True), (0.9, True), (0.8, False), (0.7, True), (0.6, False))
    )
    assert found == ((0.6, 3 / 5), (0.7, 3 / 4), (0.9, 1.0))


def test_images_that_are_equally_sure_count_together():
    assert thresholds_of(*pairs((0.9, True), (0.9, False), (0.9, True))) == ((0.9, 2 / 3),)


def test_the_lowest_threshold_of_a_precision_is_taken():
    given_back = calibration_of(*pairs((0.99, True), (0.9, True), (0.8, False), (0.7, True)))
    sure = [one for one, _ in given_back.thresholds]
    assert threshold_for(given_back, 0.5) == sure[0]
    assert threshold_for(given_back, 0.76) == threshold_for(given_back, 1.0) == sure[-1]
    assert given_back.images == 4


def test_a_precision_that_no_threshold_reaches_has_none():
    assert threshold_for(calibration_of(*pairs((0.99, False), (0.9, True))), 0.9) is None


def test_a_card_holds_a_limited_number_of_thresholds():
    random = np.random.default_rng(0)
    sure = np.sort(random.uniform(0.5, 1, 5000))
    # Wrong ones among the unsure: nearly every one of them ends a better share.
    right = random.random(5000) < sure**2
    found = thresholds_of(*pairs(*zip(sure, right, strict=True)))
    assert len(found) == MOST_STEPS
    assert sorted(found) == list(found)
    assert [share for _, share in found] == sorted(share for _, share in found)
