"""Rejecting: "unsure" in the place of a name that is likely wrong, and how often it is not."""

import numpy as np
import pytest

import tlkit
from tlkit.calibration import threshold_for
from tlkit.classifier import load
from tlkit.data.images import read
from tlkit.errors import OptionError
from tlkit.predict.run import UNSURE
from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes that a network can hardly tell apart."""
    from PIL import Image

    place = make_folder(tmp_path_factory.mktemp("hard"), ("cat", "dog"), per_class=20)
    one, other = sorted(place.iterdir())
    for path in sorted(one.iterdir())[::3]:
        Image.fromarray(read(path, at_least_px=0)).save(other / f"x{path.stem}.png")
    return place


@pytest.fixture(scope="module")
def classifier(folder, tmp_path_factory):
    run = tlkit.fit(folder, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run
    return load(run)


def test_below_the_threshold_there_is_no_name(classifier, folder):
    sure = [one.probabilities.max() for one in classifier.predict(folder)]
    middle = float(np.median(sure))
    found = classifier.predict(folder, reject_below=str(middle))
    assert [one.unsure for one in found] == [one < middle for one in sure]
    assert {one.label == UNSURE for one in found if one.unsure} == {True}
    assert {one.label in classifier.classes for one in found if not one.unsure} == {True}
    assert not any(one.unsure for one in classifier.predict(folder))


def test_evaluate_says_how_many_were_answered_and_how_well(classifier, folder):
    answers = classifier.predict(folder, reject_below="0.8")
    answered = [one for one in answers if not one.unsure]
    right = [one.label == one.path.parent.name for one in answered]
    scores = classifier.evaluate(folder, reject_below="0.8")
    assert 0 < scores.answered < 1
    assert scores.answered == pytest.approx(len(answered) / len(answers))
    assert scores.answered_accuracy == pytest.approx(np.mean(right))
    plain = classifier.evaluate(folder)
    assert plain.answered is None
    assert plain.answered_accuracy is None
    assert plain.accuracy == scores.accuracy
    assert classifier.evaluate(folder, reject_below="1").answered_accuracy is None


def test_a_precision_is_the_threshold_that_the_card_has_for_it(classifier, folder):
    calibration = classifier.card.calibration
    (lowest, share), *_ = calibration.thresholds
    wanted = min(1.0, share + 1e-6) if len(calibration.thresholds) > 1 else share
    by_precision = classifier.predict(folder, reject_below=f"precision:{wanted}")
    threshold = threshold_for(calibration, wanted)
    assert threshold >= lowest
    by_hand = classifier.predict(folder, reject_below=repr(threshold))
    assert [one.label for one in by_precision] == [one.label for one in by_hand]


def test_a_precision_that_was_never_reached_is_refused(folder, tmp_path):
    from dataclasses import replace

    one = load(tlkit.fit(folder, backbone="tiny", out=tmp_path / "run").run)
    head = one.head
    calibration = replace(head.card.calibration, thresholds=((0.5, 0.7), (0.9, 0.8)))
    worse = replace(one, heads=(replace(head, card=replace(head.card, calibration=calibration)),))
    with pytest.raises(OptionError) as caught:
        worse.predict(folder, reject_below="precision:0.9")
    assert "at most 0.8000" in caught.value.expected


@pytest.mark.parametrize("text", ["0", "1.1", "-0.5", "nan", "sure", "precision:", "precision:2"])
def test_what_is_no_threshold_is_refused(classifier, folder, text):
    with pytest.raises(OptionError) as caught:
        classifier.predict(folder, reject_below=text)
    assert text in caught.value.found


def test_several_heads_have_no_common_precision(classifier, folder):
    path = classifier.head.path
    with pytest.raises(OptionError) as caught:
        load([path, path]).predict(folder, reject_below="precision:0.9")
    assert "one head" in caught.value.expected
    assert any(one.unsure for one in load([path, path]).predict(folder, reject_below="1"))


def test_probabilities_are_those_of_the_temperature(classifier, folder):
    from dataclasses import replace

    head = classifier.head
    plain = replace(head.card.calibration, temperature=1.0)
    raw = replace(
        classifier, heads=(replace(head, card=replace(head.card, calibration=plain)),)
    ).predict(folder)
    temperature = head.card.calibration.temperature
    assert temperature != 1
    for one, other in zip(raw, classifier.predict(folder), strict=True):
        powers = one.probabilities ** (1 / temperature)
        assert np.allclose(other.probabilities, powers / powers.sum(), atol=1e-9)
