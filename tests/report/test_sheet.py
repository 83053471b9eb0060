"""A sheet shows every photo in its place, and nothing of a name is taken for HTML."""

from __future__ import annotations

import re
from pathlib import Path

from tlkit.report import sheet as module
from tlkit.report.sheet import Group, Shown, sheet


def shown(path, *caption):
    return Shown(path=path, caption=caption)


def test_photos_stand_under_their_headings_in_their_order(colours):
    names = ["red/000.png", "blue/001.png", "green/002.png"]
    first, *rest = [shown(colours / one, one, "", "second line") for one in names]
    groups = [
        Group(heading="One", about="alone", photos=[first]),
        Group(heading="Two", about="", photos=rest),
        Group(heading="None", about="", photos=[]),
    ]
    page = sheet("A title", ["a paragraph", "another"], groups)
    wanted = ["A title", "a paragraph", "another", "One", "alone", names[0], "Two", *names[1:]]
    found = [page.index(f">{one}") for one in wanted]
    assert found == sorted(found)
    assert page.count("<img src=") == 3
    assert page.count("<br>") == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_names_are_escaped():
    odd = "<b>&\u202e\x1b.png"
    page = sheet(odd, [odd], [Group(heading=odd, about=odd, photos=[shown(Path(odd), odd)])])
    assert "<b>" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.count("&lt;b&gt;&amp;") >= 6


def test_a_photo_that_cannot_be_read_has_a_placeholder(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"none")
    paths = [tmp_path / "broken.jpg", tmp_path / "gone.jpg"]
    page = sheet("", [], [Group(heading="", about="", photos=[shown(one, "x") for one in paths])])
    assert page.count("no picture") == 2
    assert 'aria-label="broken.jpg, not shown"' in page


def test_a_page_does_not_weigh_more_than_it_may(colours, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    group = Group(heading="", about="", photos=[shown(colours / "red/000.png", "x")])
    assert "<img" not in sheet("", [], [group])
