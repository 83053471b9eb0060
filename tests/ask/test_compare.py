"""Compare: heads on the same images, and never on those that they have learnt from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tlkit
from tlkit.ask.compare import JSON, PAGE, PICTURE, Pair, compare_events, pairs_of
from tlkit.errors import FolderError, HeadFileError, OptionError
from tlkit.options import CompareOptions
from tlkit.steps import finish
from tlkit.testing import make_folder
from tlkit.train.events import Note


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with parts, and runs on it: two heads, and a cross-validation."""
    place = tmp_path_factory.mktemp("compare")
    make_folder(place / "photos" / "train")
    make_folder(place / "photos" / "test", per_class=14)
    # Images of another class, which all will be wrong of, each in its way.
    red, blue = (sorted((place / "photos/test" / one).iterdir()) for one in ("red", "blue"))
    for one in red[:3]:
        shutil.copy(one, blue[0].parent / f"odd-{one.name}")
    for name, options in (
        ("a", {}), ("b", {"attach": "append", "seed": 3}), ("folds", {"folds": 2}),
    ):  # fmt: skip
        tlkit.fit(place / "photos", backbone="tiny", out=place / name, **options)
    return place


def test_scores_are_those_of_evaluate_and_a_run_with_folds_is_one(place):
    found = tlkit.compare([place / "a", place / "folds"], on=place / "photos" / "test")
    assert [one.name for one in found.contestants] == ["a", "folds"]
    assert [len(one.files) for one in found.contestants] == [1, 2]
    for one, run in zip(found.contestants, ("a", "folds"), strict=True):
        scores = tlkit.load(place / run).evaluate(place / "photos" / "test")
        assert one.scores.accuracy == scores.accuracy
        assert one.scores.loss == pytest.approx(scores.loss, abs=1e-6)
        assert one.slowest <= one.images_per_s <= one.fastest
        assert one.head_bytes == sum(file.stat().st_size for file in one.files)
    (pair,) = found.pairs
    scores = {one.name: one.scores for one in found.contestants}
    first, second = (scores[name] for name in pair.names)
    assert pair.accuracy == pytest.approx(first.accuracy - second.accuracy)
    assert pair.loss == pytest.approx(first.loss - second.loss)
    assert pair.accuracy_95[0] <= pair.accuracy <= pair.accuracy_95[1]
    # Both heads hold their own tensors, and share what is frozen.
    alone, both = (one.parameters for one in found.contestants)
    assert alone <= both <= 2 * alone


def test_the_test_part_of_the_common_folder_is_taken(place):
    found = tlkit.compare([place / "a", place / "b"])
    assert found.folder.name == "test"
    assert len(found.files) == 45
    assert found.notes == ()


def test_all_of_it_is_written(place, tmp_path):
    found = tlkit.compare([place / "a", place / "b", place / "folds"], out=tmp_path / "out")
    told = json.loads((tmp_path / "out" / JSON).read_text())
    assert list(told["heads"]) == ["a", "b", "folds"]
    assert [one["says"] for one in told["pairs"]] == [str(one) for one in found.pairs]
    assert len(told["pairs"]) == 3
    called = found.probabilities.argmax(axis=2)
    assert len(told["disagree"]) == int((called.min(axis=1) != called.max(axis=1)).sum())
    assert (tmp_path / "out" / PICTURE).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / PAGE).read_text()
    for pair in found.pairs:
        assert pair.names[0] in page


def test_classes_are_matched_by_name(place, tmp_path):
    """A head whose classes stand in another order answers the same."""
    plain = tlkit.compare([place / "a", place / "a"])
    assert [one.name for one in plain.contestants] == ["a (1)", "a (2)"]
    assert plain.pairs[0].alone == (0, 0)
    assert plain.pairs[0].p == 1
    assert plain.pairs[0].needed is None
    other = make_folder(tmp_path / "other", ("red", "black"))
    run = tlkit.fit(other, backbone="tiny", out=tmp_path / "run").run
    with pytest.raises(HeadFileError, match="different classes"):
        tlkit.compare([place / "a", run], on=place / "photos" / "test")


def test_what_was_learnt_from_is_refused(place, tmp_path, colours):
    runs = [place / "a", place / "b"]
    for on in (place / "photos" / "train", place):
        with pytest.raises(FolderError):
            tlkit.compare(runs, on=on)
    with pytest.raises(FolderError) as caught:
        tlkit.compare(runs, on=place / "photos" / "train")
    assert "has learnt from" in caught.value.about
    assert str(place / "photos" / "test") in caught.value.do
    run = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run").run
    with pytest.raises(FolderError, match="no images to compare on"):
        tlkit.compare([run, run])
    with pytest.raises(FolderError) as caught:
        tlkit.compare([run, place / "a"])
    assert "--on" in caught.value.do


def test_a_head_that_does_not_say_what_it_has_learnt_from_is_noted(place, tmp_path):
    shutil.copy(place / "a" / "head.safetensors", tmp_path / "lone.safetensors")
    notes = []
    found = finish(
        compare_events(
            [place / "a", tmp_path / "lone.safetensors"],
            CompareOptions(on=str(place / "photos" / "test")),
        ),
        lambda one: notes.append(one.text) if isinstance(one, Note) else None,
    )
    assert [one.name for one in found.contestants] == ["a", "lone"]
    assert tuple(notes) == found.notes
    assert "does not say" in notes[0]


def test_what_was_learnt_from_is_known_from_anywhere_and_noted_where_it_is_gone(
    tmp_path, monkeypatch
):
    make_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        tlkit.fit("photos", backbone="tiny", out=name, seed=ord(name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(FolderError, match="learnt from"):
        tlkit.compare(["../a", "../b"], on="../photos")
    (tmp_path / "photos").rename(tmp_path / "moved")
    notes = []
    events = compare_events(["../a", "../b"], CompareOptions(on="../moved"))
    finish(events, lambda one: notes.append(one.text) if isinstance(one, Note) else None)
    assert sum("not there any more" in one for one in notes) == 2
    with pytest.raises(FolderError, match="no longer there") as caught:
        tlkit.compare(["../a", "../b"])
    assert str(tmp_path / "photos") in caught.value.found
    assert "--on FOLDER" in caught.value.do


def test_an_image_that_cannot_be_read_takes_no_part(place, tmp_path):
    test = tmp_path / "test"
    shutil.copytree(place / "photos" / "test", test)
    (test / "red" / "bad.jpg").write_bytes(b"none")
    found = tlkit.compare([place / "a", place / "b"], on=test)
    assert [one.path.name for one in found.bad] == ["bad.jpg"]
    assert len(found.labels) == len(found.files) == 45
    assert not np.isnan(found.probabilities).any()


def test_one_alone_and_idle_options_are_refused(place):
    with pytest.raises(OptionError, match="nothing to compare"):
        tlkit.compare([place / "a"])
    with pytest.raises(OptionError, match="ignored"):
        tlkit.compare([place / "a", place / "b"], combine="logits")


def test_the_sentence_says_who_is_better_or_how_many_images_it_would_take():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    good = np.eye(2)[labels] * 0.8 + 0.1
    worse = good.copy()
    worse[:60] = worse[:60, ::-1]
    (pair,) = pairs_of(["b", "a"], labels, np.stack([worse, good], axis=1), seed=0)
    assert pair.names == ("a", "b")
    assert pair.apart
    assert str(pair).startswith("a is better than b: +10.0 points (")
    worse = good.copy()
    worse[:4] = worse[:4, ::-1]
    (pair,) = pairs_of(["a", "b"], labels, np.stack([good, worse], axis=1), seed=0)
    assert not pair.apart
    assert str(pair).startswith("600 images do not tell a and b apart: +0.7 points (")
    assert "would, if they differ as here" in str(pair)
    assert isinstance(replace(pair, needed=None), Pair)
    assert "would" not in str(replace(pair, needed=None))
