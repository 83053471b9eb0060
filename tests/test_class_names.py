"""Names of classes: whatever a folder may be called comes back from everything that is written."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tlkit
from tlkit import runs
from tlkit.cli import main
from tlkit.data.folder import lookalikes
from tlkit.errors import FolderError, printable, shell_word
from tlkit.export import _line
from tlkit.files import csv_line
from tlkit.predict.layout import Layout
from tlkit.predict.run import Prediction
from tlkit.report.explain import picture_names
from tlkit.report.html import environment
from tlkit.sorting import folders_of
from tlkit.testing import make_folder

ODD = [
    "a,b", 'quo"te', "line\nbreak", "return\rhere", "both\r\n", "\r", "tab\there", "=1+1", "+1",
    "-1", "@SUM(A1)", "back\\slash", "\\n", "\x1b[31m", "x" * 255, "é" * 127, "\udcff\udcfe",
    "..a", "...", "con", "aux.txt", "dot.", "blank ", " blank", "caf\u00e9", "cafe\u0301",
    "\u202eabc", "\u2028", "\x85", "<b>&amp;", "{{ 1 }}", "$x$", "'", "%", "NA", "null", "true",
    "1e5", '"quoted"', '""',
]  # fmt: skip
"""Legal names of folders that writers and readers have stumbled over."""


def legal(name: bytes) -> bool:
    return name not in (b".", b"..") and b"/" not in name and b"\0" not in name


NAMES = st.one_of(
    st.sampled_from(ODD),
    st.text(min_size=1, max_size=30).filter(lambda name: legal(name.encode())),
    st.binary(min_size=1, max_size=20).filter(legal).map(os.fsdecode),
)
SETS = st.lists(NAMES, min_size=2, max_size=4, unique=True)


def prediction(classes):
    return Prediction(
        path=Path("photos") / classes[0],
        classes=tuple(classes),
        probabilities=np.linspace(1, 2, len(classes)) / np.linspace(1, 2, len(classes)).sum(),
    )


def layout(classes):
    return Layout(top=len(classes), answers=True, familiarity=False)


@given(SETS)
@example(["return\rhere", "line\nbreak"])
def test_csv_gives_every_name_back(classes):
    row = layout(classes).row(prediction(classes))
    written = (csv_line(layout(classes).columns) + csv_line(row)).encode("utf-8", "surrogateescape")
    assert written.endswith(b"\n")
    assert not written.endswith(b"\r\n")
    file = io.TextIOWrapper(io.BytesIO(written), "utf-8", "surrogateescape", newline="")
    (read,) = csv.DictReader(file)
    assert read["path"] == str(prediction(classes).path)
    assert {read[f"class_{i + 1}"] for i in range(len(classes))} == set(classes)


@given(SETS)
def test_the_table_of_a_run_gives_every_name_back(classes):
    told = runs.Told(
        files=tuple(f"{name}/1.png" for name in classes),
        classes=tuple(classes),
        labels=np.arange(len(classes)),
        probabilities=np.eye(len(classes)),
    )
    written = runs.as_told(told).encode("utf-8", "surrogateescape")
    file = io.TextIOWrapper(io.BytesIO(written), "utf-8", "surrogateescape", newline="")
    header, *rows = csv.reader(file)
    assert [one.removeprefix("probability_") for one in header[2:]] == classes
    assert [row[1] for row in rows] == classes


def test_the_table_of_a_run_is_read_again_by_tlkit(tmp_path):
    told = runs.Told(
        files=tuple(f"{number}/{name}" for number, name in enumerate(ODD)),
        classes=tuple(ODD),
        labels=np.arange(len(ODD)),
        probabilities=np.eye(len(ODD)),
    )
    (tmp_path / "t.csv").write_bytes(runs.as_told(told).encode("utf-8", "surrogateescape"))
    again = runs.read_told(tmp_path / "t.csv")
    assert (again.classes, again.files) == (told.classes, told.files)


@given(SETS)
def test_json_gives_every_name_back_to_a_strict_reader(classes):
    line = json.dumps(layout(classes).record(prediction(classes)))
    assert {one["class"] for one in json.loads(line.encode("utf-8"))["top"]} == set(classes)
    text = runs.as_json({"classes": classes, **dict.fromkeys(classes)})
    assert json.loads(text.encode("utf-8"))["classes"] == classes


@given(SETS)
def test_parquet_gives_every_name_back_and_escapes_bytes_that_are_no_text(classes):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(layout(classes).table([layout(classes).row(prediction(classes))]), file)
    (row,) = parquet.read_table(file).to_pylist()
    wanted = {name.encode("utf-8", "backslashreplace").decode() for name in classes}
    assert {row[f"class_{i + 1}"] for i in range(len(classes))} == wanted


class Text(HTMLParser):
    """The text of a page."""

    def __init__(self, page):
        super().__init__()
        self.text = ""
        self.names = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.title = dict(attrs).get("title", getattr(self, "title", None))

    def handle_data(self, data):
        self.text += data


@given(NAMES)
def test_html_shows_every_name_as_text_with_what_cannot_be_seen_escaped(name):
    template = environment().from_string('<p title="{{ it | plain }}">{{ it | name }}</p>')
    page = Text(template.render(it=name))
    assert page.names == ["p", "bdi"]
    shown = printable(name)
    if len(shown) <= 60:
        assert page.text == shown
        assert page.title == shown


@given(NAMES)
def test_a_list_of_classes_for_other_programs_gives_every_name_back(name):
    line = _line(name)
    (read,) = line.encode("utf-8").decode().splitlines()
    assert (json.loads(read) if read.startswith('"') else read) == name


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_every_class_has_a_folder_of_its_own_that_every_disk_takes(classes):
    folders = folders_of(classes)
    assert len({name.casefold() for name in folders.values()}) == len(classes)
    for folder in folders.values():
        assert 0 < len(folder.encode("utf-8", "surrogateescape")) <= 255
        assert not set(folder) & set('/\\:*?"<>|\n\r\0')
        assert not folder.endswith((".", " "))
        assert folder.partition(".")[0].casefold() not in {"con", "prn", "aux", "nul", "com1"}


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_every_picture_has_a_name_of_its_own_that_the_disk_takes(names):
    pictures = picture_names([Path(name) for name in names])
    assert len(set(pictures)) == len(names)
    assert all(len(one.encode("utf-8", "surrogateescape")) <= 255 for one in pictures)


@settings(max_examples=30)
@given(NAMES)
def test_a_shell_takes_a_quoted_name_as_it_is(name):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    words = f"printf %s {shell_word(name)}"
    assert words == printable(words)
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=True)
    assert done.stdout == name.encode("utf-8", "surrogateescape")


# --- from a folder to every file that a command writes --------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of classes with odd names, and a run on it."""
    place = tmp_path_factory.mktemp("odd")
    plain = make_folder(place / "plain", per_class=4)
    folder = place / "photos"
    sources = sorted(plain.iterdir())
    names = ['=1+1,"x"', "line\nbreak", "back\\slash ", "\udcff", "caf\u00e9", "$x$", "\r"]
    for number, name in enumerate(names):
        shutil.copytree(sources[number % 3], folder / name)
    run = tlkit.fit(folder, backbone="tiny", epochs=3, out=place / "run").run
    return folder, run, sorted(names)


def test_a_command_writes_every_name_so_that_it_comes_back(odd, tmp_path):
    folder, run, names = odd
    assert sorted(tlkit.load(run).classes) == names
    for form in ("csv", "jsonl", "parquet"):
        words = ["predict", str(folder), "--head", str(run), "--top", "7", "--out", f"out.{form}"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    with open("out.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(names)
    assert {row["class_1"] for row in rows} <= set(names)
    assert all(sorted(row[f"class_{i}"] for i in range(1, 8)) == names for row in rows)
    assert {Path(row["path"]).parent.name for row in rows} == set(names)
    lines = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    assert all(sorted(one["class"] for one in line["top"]) == names for line in lines)
    tlkit.write_report(run, maps=False)
    for file in run.rglob("*.json"):
        json.loads(file.read_bytes())


def test_features_of_classes_with_odd_names_are_written(odd, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, _, names = odd
    tlkit.features(folder, tmp_path / "out", backbone="tiny")
    labels = {
        label
        for part in (tmp_path / "out").rglob("*.parquet")
        if "label" in (table := parquet.read_table(part)).column_names
        for label in table.column("label").to_pylist()
    }
    assert labels == {name.encode("utf-8", "backslashreplace").decode() for name in names}


# --- names that look alike ------------------------------------------------------------------------

ALIKE = [
    ("cat", "Cat"),
    ("cat", "cat "),
    ("cat", " cat"),
    ("cat", "cat."),
    ("caf\u00e9", "cafe\u0301"),
]


@pytest.mark.parametrize("pair", ALIKE, ids=ascii)
def test_check_finds_class_folders_whose_names_look_alike(pair, tmp_path):
    folder = make_folder(tmp_path / "photos", (*pair, "dog"), per_class=2)
    findings = [one for one in tlkit.check(folder).findings if one.kind == "lookalike"]
    assert [one.about for one in findings] == [
        f"class folders {', '.join(map(ascii, sorted(pair)))}"
    ]


def test_all_spellings_of_one_name_are_one_finding(tmp_path):
    names = ["cat", "Cat", "cat ", "dog", "caf\u00e9", "cafe\u0301"]
    folder = make_folder(tmp_path / "photos", names, per_class=2)
    findings = [one for one in tlkit.check(folder).findings if one.kind == "lookalike"]
    assert [one.about.count("'") // 2 for one in findings] == [3, 2]
    assert not [one for one in tlkit.check(make_folder(tmp_path / "plain")).findings
                if one.kind == "lookalike"]  # fmt: skip


@pytest.mark.parametrize("pair", ALIKE, ids=ascii)
def test_fit_and_evaluate_name_both_spellings_and_the_command_that_renames(pair, tmp_path):
    learnt, other = pair
    make_folder(tmp_path / "photos" / "train", (learnt, "dog"), per_class=4)
    make_folder(tmp_path / "photos" / "test", (other, "dog"), per_class=2)
    with pytest.raises(FolderError) as caught:
        tlkit.fit(tmp_path / "photos", backbone="tiny")
    head = tlkit.load(tlkit.fit(tmp_path / "photos" / "train", backbone="tiny").run)
    with pytest.raises(FolderError) as evaluated:
        head.evaluate(tmp_path / "photos" / "test")
    for error in (caught.value, evaluated.value):
        assert ascii(learnt) in error.found
        assert ascii(other) in error.found
    subprocess.run(["bash", "-c", caught.value.do], check=True)
    assert head.evaluate(tmp_path / "photos" / "test").images == 4


def test_names_that_differ_in_more_are_not_alike():
    assert lookalikes("cat", ["cats", "c.at", "dog", "cat"]) == []
