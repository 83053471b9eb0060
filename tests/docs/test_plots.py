"""The pictures show what the tables of the benchmarks say."""

import runpy

import pytest
from pages import DOCS

PLOTS = runpy.run_path(str(DOCS.parent / "benchmarks" / "plots.py"))
README = DOCS.parent / "README.md"


@pytest.mark.parametrize("name", PLOTS["PLOTS"])
def test_a_picture_is_of_the_figures_that_are_there_now(name, tmp_path):
    drawn = PLOTS["draw"](name, tmp_path).read_text()
    kept = (DOCS / "images" / f"{name}.svg").read_text()
    told = PLOTS["figures"](name)
    assert told in drawn
    assert told in kept


@pytest.mark.parametrize("name", PLOTS["PLOTS"])
def test_a_picture_is_small_shown_and_fits_light_and_dark(name):
    path = DOCS / "images" / f"{name}.svg"
    assert path.stat().st_size < 40_000
    assert f"docs/images/{name}.svg" in README.read_text()
    assert f"images/{name}.svg" in (DOCS / "index.md").read_text()
    assert "#ffffff" not in path.read_text()


def test_a_table_is_read_by_its_headers():
    rows = PLOTS["table"]("**One**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n", "One")
    assert rows == [{"a": "1", "b": "2"}]
