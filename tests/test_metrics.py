"""Metrics: against scikit-learn, and by hand where a class is missing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tlkit.metrics import MOST_CLASSES, MOST_CONFUSIONS, measure, reliability


def drawn(count: int, classes: int, seed: int = 0):
    """Labels with every class, and probabilities that are right more often than not."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def certain(labels, called, classes: int):
    """The evaluation of answers given with near certainty."""
    probabilities = np.full((len(called), classes), 0.01)
    probabilities[np.arange(len(called)), called] = 1 - 0.01 * (classes - 1)
    return measure(np.array(labels), probabilities, [f"c{one}" for one in range(classes)])


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_every_number_agrees_with_scikit_learn(classes):
    labels, probabilities = drawn(60, classes)
    called = probabilities.argmax(axis=1)
    one = measure(labels, probabilities, [str(number) for number in range(classes)])
    assert one.images == 60
    assert one.accuracy == pytest.approx(metrics.accuracy_score(labels, called))
    assert one.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, called))
    assert one.loss == pytest.approx(metrics.log_loss(labels, probabilities))
    truth = np.eye(classes)[labels]
    assert one.brier == pytest.approx(np.square(probabilities - truth).sum(axis=1).mean())
    assert np.array_equal(one.confusion, metrics.confusion_matrix(labels, called))
    report = metrics.classification_report(labels, called, output_dict=True)
    for score in one.classes:
        assert score.precision == pytest.approx(report[score.name]["precision"])
        assert score.recall == pytest.approx(report[score.name]["recall"])
        assert score.f1 == pytest.approx(report[score.name]["f1-score"])
        assert score.images == report[score.name]["support"]


def test_rows_are_what_an_image_is_and_columns_what_it_was_called():
    one = certain([0, 0, 0, 1], [0, 1, 1, 1], 2)
    assert one.confusion.tolist() == [[1, 2], [0, 1]]
    zero, first = one.classes
    assert (zero.precision, zero.recall) == (1.0, pytest.approx(1 / 3))
    assert (first.precision, first.recall) == (pytest.approx(1 / 3), 1.0)
    assert one.accuracy == 0.5
    assert one.balanced_accuracy == pytest.approx((1 / 3 + 1) / 2)


def test_a_class_without_images_has_zeros_and_does_not_lower_the_balanced_accuracy():
    one = certain([0, 0, 1, 1], [0, 0, 1, 1], 3)
    missing = one.classes[2]
    assert (missing.images, missing.precision, missing.recall, missing.f1) == (0, 0, 0, 0)
    assert one.balanced_accuracy == one.accuracy == 1
    assert one.confusion.shape == (3, 3)


def test_a_class_that_nothing_is_called_has_a_precision_of_zero():
    one = certain([0, 1, 2], [0, 0, 0], 3)
    assert one.classes[1].precision == 0
    assert one.balanced_accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(("classes", "known"), [(2, False), (5, False), (6, True)])
def test_the_five_likeliest_are_asked_only_where_there_are_more(classes, known):
    labels, probabilities = drawn(200, classes, seed=1)
    one = measure(labels, probabilities, [str(number) for number in range(classes)])
    assert (one.top5 is not None) == known
    if known:
        by_hand = (np.argsort(-probabilities)[:, :5] == labels[:, None]).any(axis=1).mean()
        assert one.top5 == pytest.approx(by_hand)
        assert one.accuracy <= one.top5 < 1


def test_the_five_likeliest_are_asked_of_classes_that_do_not_occur_too():
    probabilities = np.tile([0.3, 0.2, 0.2, 0.1, 0.1, 0.06, 0.04], (2, 1))
    one = measure(np.array([0, 6]), probabilities, "abcdefg")
    assert one.top5 == 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_interval_is_wilsons_and_contains_the_accuracy(right, wrong):
    count = right + wrong
    if not count:
        return
    one = certain([0] * count, [0] * right + [1] * wrong, 2)
    assert 0 <= one.accuracy_low <= one.accuracy <= one.accuracy_high <= 1
    assert one.accuracy_low < one.accuracy_high
    # The ends solve (p - accuracy)^2 = z^2 p (1 - p) / N, which is how Wilson defines them.
    for end in (one.accuracy_low, one.accuracy_high):
        off = (end - one.accuracy) ** 2 - 1.959963985**2 * end * (1 - end) / count
        assert abs(off) < 1e-6


def test_the_interval_narrows_with_the_number_of_images():
    widths = []
    for count in (10, 40, 160, 640):
        one = certain([0] * count, [0] * (count * 9 // 10) + [1] * (count // 10), 2)
        widths.append(one.accuracy_high - one.accuracy_low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.06


def test_a_loss_is_finite_for_an_answer_that_was_certain_and_wrong():
    one = measure(np.array([0]), np.array([[0.0, 1.0]]), ["a", "b"])
    assert math.isfinite(one.loss)
    assert one.loss > 100


def test_a_single_image_can_be_judged():
    one = certain([1], [1], 2)
    assert one.accuracy == one.balanced_accuracy == 1
    assert one.accuracy_low < 0.5


def test_an_evaluation_goes_through_json_and_back():
    labels, probabilities = drawn(20, 6)
    one = measure(labels, probabilities, "abcdef")
    plain = one.plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["confusion"] == one.confusion.tolist()
    assert plain["accuracy_95"] == [one.accuracy_low, one.accuracy_high]
    assert list(plain["classes"]) == list("abcdef")
    assert plain["classes"]["c"]["recall"] == one.classes[2].recall


def test_the_calibration_error_is_how_far_sure_is_from_right_in_each_bin():
    sure = np.array([0.95, 0.95, 0.95, 0.95, 0.6, 0.6])
    labels = np.array([0, 0, 0, 1, 0, 1])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    high, low = 0.95 - 3 / 4, 0.6 - 1 / 2
    one = measure(labels, probabilities, "ab")
    assert one.calibration_error == pytest.approx((4 * high + 2 * low) / 6)
    assert [(each.images, each.right) for each in reliability(labels, probabilities)] == [
        (2, 0.5),
        (4, 0.75),
    ]


def test_certain_and_right_is_perfectly_calibrated_certain_and_wrong_not_at_all():
    right = measure(np.array([0, 1]), np.eye(2), "ab")
    assert (right.calibration_error, right.brier) == (0, 0)
    wrong = measure(np.array([1, 0]), np.eye(2), "ab")
    assert (wrong.calibration_error, wrong.brier) == (1, 2)


def test_what_was_answered_is_scored_by_itself():
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    labels, probabilities = np.array([0, 1, 0, 1]), np.stack([sure, 1 - sure], axis=1)
    one = measure(labels, probabilities, "ab", answered=np.array([True, False, True, False]))
    assert (one.answered, one.answered_accuracy, one.accuracy) == (0.5, 1.0, 0.5)
    none = measure(labels, probabilities, "ab", answered=np.zeros(4, bool))
    assert (none.answered, none.answered_accuracy) == (0.0, None)


def test_a_card_takes_no_confusion_matrix():
    labels, probabilities = drawn(20, 6)
    one = measure(labels, probabilities, "abcdef")
    assert {*one.plain()} - {*one.in_card()} == {"confusion"}
    large = of_many_classes()
    assert {*large.plain()} - {*large.in_card()} == {"confusion", "largest_confusions"}


def of_many_classes(count=MOST_CLASSES + 20, images=5000):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, count, images)
    probabilities = np.eye(count)[np.where(draw.random(images) < 0.3, labels, labels // 3)]
    return measure(labels, probabilities, [f"class {number}" for number in range(count)])


def test_of_many_classes_the_largest_confusions_are_written_and_not_the_matrix():
    one = of_many_classes()
    plain = one.plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["confusion"] is None
    wrong = one.confusion - np.diag(np.diag(one.confusion))
    cells = plain["largest_confusions"]
    assert len(cells) == min(MOST_CONFUSIONS, np.count_nonzero(wrong))
    assert all(wrong[i, j] == images for i, j, images in cells)
    counts = [images for _, _, images in cells]
    assert counts == sorted(wrong[wrong > 0].tolist(), reverse=True)[: len(cells)]
    again = np.zeros_like(one.confusion)
    for i, j, images in one.cells():
        again[i, j] = images
    assert (again == one.confusion).all()


@pytest.mark.parametrize("images", [10, 100_000])
def test_what_is_written_of_many_classes_does_not_grow_with_their_square(images):
    from tlkit.runs import as_json

    fewer, more = (len(as_json(of_many_classes(count, images).plain())) for count in (300, 600))
    assert more < 2.2 * fewer
