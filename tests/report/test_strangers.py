"""Parts of reports by installed packages: shown where they keep the contract, named where not."""

from __future__ import annotations

import numpy as np
import pytest

from tlkit.plugins import REPORTS, find
from tlkit.report import page
from tlkit.report.page import written

HEAD = """
from tlkit.report.part import Made, Part
def part(name, make, template="<p>{{ data.text | name }}</p>"):
    return Part(name=name, title=name.title(), make=make, template=template)
PNG = b"\\x89PNG\\r\\n\\x1a\\nrest"
"""


@pytest.fixture
def install(install):
    """Writes a distribution with these parts of reports, by the code that makes each."""

    def write(distribution, **makers):
        lines = [f"{name} = {value}" for name, value in makers.items()]
        install(distribution, HEAD + "\n".join(lines), reports=makers)

    return write


@pytest.fixture
def small(subject):
    return subject(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))


def test_a_part_of_a_package_is_on_the_page_in_the_json_and_beside_them(install, small):
    install(
        "zz-report",
        images="""part("images", lambda s: Made(data={"text": f"<i>{len(s.labels)}</i>"},
            figures={"": PNG, "more": PNG}))""",
    )
    report = written(small)
    assert '<section id="part-images" aria-labelledby="part-images-title">' in report.html
    assert "&lt;i&gt;3&lt;/i&gt;" in report.html
    assert "by zz-report 1.0" in report.html
    assert report.data["parts"]["images"] == {"text": "<i>3</i>"}
    assert {"figure-images.png", "figure-images-more.png"} < report.figures.keys()
    assert report.data["broken"] == []


def test_text_that_is_none_is_escaped_on_the_page(install, small):
    install(
        "zz-report",
        odd='part("odd", lambda s: Made(data={"text": "\\ud800"}), "<p>{{ data.text }}")',
    )
    report = written(small)
    assert report.data["broken"] == []
    assert r"<p>\ud800" in report.html.encode().decode()


def test_a_part_with_nothing_to_tell_is_left_out(install, small):
    install("zz-report", silent='part("silent", lambda s: None)')
    report = written(small)
    assert "silent" not in report.html
    assert report.data["broken"] == []


BROKEN = {
    "raises": ('part("raises", lambda s: 1 / 0)', "ZeroDivisionError"),
    "exits": ('part("exits", lambda s: exit(3))', "SystemExit"),
    "template": (
        'part("template", lambda s: Made(data={}), "{{ data.missing }}")',
        "UndefinedError",
    ),
    "nan": ('part("nan", lambda s: Made(data={"text": float("nan")}))', "ValueError"),
    "arrays": ('part("arrays", lambda s: Made(data={"text": s.labels}))', "TypeError"),
    "large": ('part("large", lambda s: Made(data={"text": ""}), "x" * 2**21)', "too large"),
    "full": ('part("full", lambda s: Made(data={"text": "x" * 2**21}), "")', "too large"),
    "leaves": ('part("leaves", lambda s: Made(data={}), "</section>")', "beyond its section"),
    "meta": ("""part("meta", lambda s: Made(data={}), '<META http-equiv="refresh">')""", "meta"),
    "jpeg": (
        'part("jpeg", lambda s: Made(data={"text": ""}, figures={"": b"JFIF"}))',
        "figure-jpeg.png",
    ),
    "climbs": (
        'part("climbs", lambda s: Made(data={"text": ""}, figures={"../up": PNG}))',
        "../up",
    ),
    "other": ('part("elsewhere", lambda s: Made(data={"text": ""}))', "elsewhere"),
    "summary": ('part("summary", lambda s: Made(data={"text": ""}))', "another part has its name"),
    "word": ('"just a word"', "is a str, not a Part"),
    "nothing": ('part("nothing", lambda s: "text")', "AttributeError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_part_that_breaks_the_contract_is_named_and_stops_nothing_else(install, small, name):
    code, reason = BROKEN[name]
    install("zz-report", **{name: code}, zz='part("zz", lambda s: Made(data={"text": "well"}))')
    report = written(small)
    (broken,) = report.data["broken"]
    assert (broken["part"], broken["package"]) == (name, "zz-report 1.0")
    assert reason in broken["reason"]
    assert f"The part <bdi>{name}</bdi> of zz-report 1.0 failed" in report.html
    assert report.data["parts"]["zz"] == {"text": "well"}
    assert report.data["parts"]["summary"]["images"] == 3


def test_a_package_that_cannot_be_imported_is_named(install, small):
    install("zz-report", gone="no_such_name")
    (broken,) = written(small).data["broken"]
    assert "NameError" in broken["reason"]


def test_parts_share_the_room_that_there_is(install, small, monkeypatch):
    monkeypatch.setattr(page, "LARGEST_PART", 1000)
    makers = {
        f"p{number}": f'part("p{number}", lambda s: Made(data={{}}), "x" * 900)'
        for number in range(6)
    }
    install("zz-report", **makers)
    report = written(small)
    assert [one["part"] for one in report.data["broken"]] == ["p4", "p5"]


def test_tlkit_plugins_limits_whose_parts_are_asked(install, small, monkeypatch):
    install("zz-report", images='part("images", lambda s: Made(data={"text": "x"}))')
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit")
    assert find([REPORTS]) == ()
    assert "images" not in written(small).data["parts"]


def test_what_a_part_prints_does_not_reach_standard_output(install, small, capsys):
    install("zz-report", loud='part("loud", lambda s: print("hello"))')
    written(small)
    assert capsys.readouterr().out == ""


def test_plugins_lists_parts_and_says_which_are_broken(install):
    from click.testing import CliRunner

    from tlkit.cli import main

    install("zz-report", well='part("well", lambda s: None)')
    install("zz-other", bad="1 / 0")
    shown = CliRunner().invoke(main, ["plugins", "zz-report", "zz-other"])
    (well,) = [line for line in shown.output.splitlines() if "zz-report" in line]
    (bad,) = [line for line in shown.output.splitlines() if "zz-other" in line]
    assert "report well" in well
    assert "loads" in well
    assert "broken: bad: ZeroDivisionError" in bad
    told = CliRunner().invoke(main, ["plugins", "zz-report", "--check"])
    assert told.exit_code == 0
    assert "keeps the contract" in told.output
