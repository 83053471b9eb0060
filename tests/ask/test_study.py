"""A study's heads are those of a fit."""

import numpy as np
import pytest

import tlkit
from tlkit.ask.study import study
from tlkit.data.folder import scan_parts
from tlkit.errors import FolderError
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.testing import make_folder


def photos(place, per_class):
    make_folder(place / "train", per_class=per_class)
    make_folder(place / "test", per_class=5, seed=1)
    return place


def told(folder, *, seed=0, **options):
    parts = scan_parts(folder)
    seen = finish(study(FitOptions(backbone="tiny", **options), [parts.train, parts.test]))
    return seen.told(seen.banks[0], [seen.banks[1]], seed=seed)[0]


@pytest.mark.parametrize(
    ("per_class", "few", "way"),
    [
        (1, 512, {}),
        (2, 512, {"balance": "classes"}),
        (7, 512, {"epochs": 5, "monitor": "accuracy"}),
        (7, 12, {}),
        (7, 12, {"refit": False}),
    ],
    ids=str,
)
def test_its_probabilities_are_those_of_a_fit(tmp_path, monkeypatch, per_class, few, way):
    monkeypatch.setattr("tlkit.train.run.FEW", few)
    folder = photos(tmp_path / "photos", per_class)
    head = tlkit.fit(folder, backbone="tiny", seed=3, out=tmp_path / "run", **way).head
    tested = scan_parts(folder).test
    found = tlkit.load(head).predict(list(tested.paths))
    wanted = np.stack([one.probabilities for one in found])
    # A bank keeps 11 bits of each number; predict computes them anew.
    assert np.abs(told(folder, seed=3, **way) - wanted).max() < 2e-4


def test_classes_of_one_image_beside_others_are_learnt(tmp_path):
    folder = photos(tmp_path / "photos", 4)
    for one in sorted((folder / "train" / "red").iterdir())[1:]:
        one.unlink()
    assert (told(folder).argmax(axis=1) == scan_parts(folder).test.labels).mean() > 0.8


def test_what_needs_an_image_to_choose_by_says_so(tmp_path):
    with pytest.raises(FolderError, match="nothing to hold out"):
        told(photos(tmp_path / "photos", 1), head="mlp")
