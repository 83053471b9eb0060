"""One decoder for every command: the nasty folder, in fit, evaluate, predict and check."""

import sys

import numpy as np
import pytest
from nasty import COLOURS, bad_files, every_kind, picture

import tlkit
from tlkit.data.images import BadImage
from tlkit.errors import ImageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its disks know no such names")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    place = tmp_path_factory.mktemp("nasty") / "photos"
    for part, seed in (("train", 0), ("test", 1)):
        for colour in COLOURS:
            every_kind(picture(colour, seed), place / part / colour)
    return place


@pytest.fixture(scope="module")
def fitted(nasty, tmp_path_factory):
    return tlkit.fit(
        nasty, backbone="tiny", epochs=10, out=tmp_path_factory.mktemp("run") / "run", bank="none"
    )


def test_every_kind_is_seen_alike_by_fit_evaluate_and_predict(nasty, fitted):
    head = tlkit.load(fitted.head)
    evaluated = head.evaluate(nasty / "test")
    assert evaluated.unreadable == ()
    assert evaluated.images == fitted.test.images
    assert (evaluated.confusion == fitted.test.confusion).all()
    assert evaluated.loss == pytest.approx(fitted.test.loss, abs=1e-4)
    each = head.predict(nasty / "test", batch=7)
    assert len(each) == evaluated.images
    right = [one.path.parent.name == one.label for one in each]
    assert sum(right) / len(right) == pytest.approx(evaluated.accuracy)


def test_an_orientation_changes_no_prediction(nasty, fitted):
    head = tlkit.load(fitted.head)
    for colour in COLOURS:
        files = [nasty / "test" / colour / f"orientation{n}.png" for n in range(1, 9)]
        each = [one.probabilities for one in head.predict(files)]
        plain = head.predict(nasty / "test" / colour / "plain.png")[0].probabilities
        for one in each:
            assert np.allclose(one, plain, atol=1e-6)


def test_lossless_kinds_of_one_picture_give_one_prediction(nasty, fitted):
    head = tlkit.load(fitted.head)
    names = ["plain.png", "some.bmp", "some.ppm", "frames.tif", "some.webp", "link.png"]
    each = [one.probabilities for one in head.predict([nasty / "test/red" / n for n in names])]
    assert all(np.allclose(one, each[0], atol=1e-6) for one in each)
    greys = ["grey.png", "deep.png", "floats.tif"]
    each = [one.probabilities for one in head.predict([nasty / "test/red" / n for n in greys])]
    assert all(np.allclose(one, each[0], atol=1e-3) for one in each)


def test_whatever_is_none_is_named_with_a_reason_by_every_command(nasty, fitted, tmp_path):
    place = tmp_path / "photos"
    for colour in COLOURS:
        every_kind(picture(colour), place / colour)
    bad = bad_files(place / "red")
    with pytest.raises(ImageError) as caught:
        tlkit.fit(place, backbone="tiny")
    assert all(name in caught.value.found for name in bad)
    result = tlkit.fit(place, backbone="tiny", on_bad="skip", epochs=3)
    assert {one.path.name for one in result.bad} == bad
    head = tlkit.load(fitted.head)
    left_out = head.evaluate(place).unreadable
    assert len(left_out) == len(bad)
    assert all(any(f"/{name}: " in one for one in left_out) for name in bad)
    told = [one for one in head.predict(place) if isinstance(one, BadImage)]
    assert {one.path.name for one in told} == bad
    assert all(one.reason for one in told)
    found = [one for one in tlkit.check(place).findings if one.kind == "unreadable"]
    assert {str(one.files[0]).rpartition("/")[2] for one in found} == bad
