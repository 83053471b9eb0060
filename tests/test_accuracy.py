"""Accuracy on photos never used for any choice. The numbers of many seeds stand in the README."""

from pathlib import Path

import pytest

import tlkit
from tlkit.data.sample import write_sample
from tlkit.steps import finish

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="the photo sets do not lie beside the project")
def test_ants_and_bees_with_default_options(tmp_path):
    result = tlkit.fit(DATA / "hymenoptera" / "train", out=tmp_path / "run")
    assert tlkit.load(result.head).evaluate(DATA / "hymenoptera" / "test").accuracy >= 0.945


def test_digits_with_default_options(tmp_path):
    """Real weights on images that need no download: far above what a random backbone gives."""
    finish(write_sample("digits", tmp_path / "digits"))
    for path in (tmp_path / "digits").rglob("*[1-9].png"):
        path.unlink()
    scores = {}
    for weights in ("default", "none"):
        result = tlkit.fit(tmp_path / "digits", weights=weights, out=tmp_path / weights)
        scores[weights] = result.test.accuracy
    assert scores["default"] > 0.75
    assert scores["default"] > scores["none"] + 0.1
