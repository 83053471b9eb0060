"""Vectors of photos without a class: those of a fit, and what heads make of them."""

from pathlib import Path

import numpy as np
import pytest

import tlkit
from tlkit.artifact import load_all
from tlkit.ask.vectors import extractor_by, extractor_of, fill, photos, scored
from tlkit.errors import FolderError, HeadFileError, OptionError
from tlkit.options import FitOptions, SimilarOptions, SuggestOptions
from tlkit.runs import head_files
from tlkit.steps import finish
from tlkit.testing import make_folder
from tlkit.train.bank import Extractor

OPTIONS = SuggestOptions()


@pytest.fixture(scope="module")
def fits(colours, tmp_path_factory):
    """Runs: a frozen backbone, folds, some of the network trained, all of it."""
    home = tmp_path_factory.mktemp("fits")
    more = {
        "plain": {},
        "folds": {"folds": 3},
        "part": {"freeze": "to:stage1", "epochs": 1},
        "whole": {"freeze": "none", "epochs": 1},
    }
    return {
        name: tlkit.fit(colours, backbone="tiny", out=home / name, **one).run
        for name, one in more.items()
    }


def heads(run):
    return load_all(head_files(run), weights="")


@pytest.mark.parametrize("name", ["plain", "folds", "part", "whole"])
def test_heads_say_what_a_prediction_says(fits, colours, name):
    loaded = heads(fits[name])
    found = finish(scored(loaded, photos([colours]), OPTIONS))
    answers = tlkit.load(fits[name]).predict(colours)
    assert [one.path for one in answers] == list(found.bank.catalog.paths)
    wanted = np.stack([one.probabilities for one in answers])
    assert found.probabilities == pytest.approx(wanted, abs=1e-3)
    likes = [one.familiarity for one in answers]
    if None in likes:
        assert found.familiarity is None
    else:
        assert found.familiarity == pytest.approx(np.array(likes), abs=0.1)


def test_what_a_fit_has_looked_at_is_not_looked_at_again(colours, tmp_path, monkeypatch):
    run = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run").run

    def started(self):
        raise AssertionError("something was computed again")

    monkeypatch.setattr(Extractor, "start", started)
    catalog = photos([colours])
    by_head = finish(fill(extractor_of(heads(run)[0], OPTIONS, 24)[0], catalog, what=""))
    by_options = finish(fill(extractor_by(SimilarOptions(backbone="tiny"), 24), catalog, what=""))
    every = np.arange(24)
    assert (by_head.at(every, 0) == by_options.at(every, 0)).all()


def test_photos_are_those_of_folders_and_files_in_order(colours):
    whole = photos([colours])
    assert (len(whole), whole.root, set(whole.labels)) == (24, colours, {0})
    named = [colours / "red", colours / "blue" / "001.png"]
    assert list(photos(named).paths)[-1] == named[1]
    assert len(photos(named)) == 9
    assert list(photos([colours / "red"]).paths) == list(photos(named).paths)[:8]
    with pytest.raises(FolderError, match="nothing to look at"):
        photos([colours / "violet"])


def test_one_folder_by_a_relative_path_is_the_same_photos(colours, monkeypatch):
    monkeypatch.chdir(colours)
    for one in (Path(), Path("red"), Path("./red/")):
        assert list(photos([one]).paths) == sorted(one.rglob("*.png"))


def test_without_a_frozen_part_there_are_no_features():
    with pytest.raises(OptionError, match="nothing is frozen"):
        extractor_by(FitOptions(backbone="tiny", freeze="none"), 24)


def test_heads_that_see_by_different_features_or_classes_are_refused(fits, colours, tmp_path):
    catalog = photos([colours])
    with pytest.raises(OptionError, match="different features"):
        finish(scored(heads(fits["plain"]) + heads(fits["part"]), catalog, OPTIONS))
    other = make_folder(tmp_path / "other", ("cat", "dog"))
    run = tlkit.fit(other, backbone="tiny", out=tmp_path / "run").run
    with pytest.raises(HeadFileError, match="different classes"):
        finish(scored(heads(fits["plain"]) + heads(run), catalog, OPTIONS))
