"""Reports: whole, self-contained, bounded, and honest about which images they are of."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import tlkit
from tlkit import reporting, runs
from tlkit.data.folder import scan
from tlkit.errors import DiskError, FolderError, OptionError, RunFolderError
from tlkit.metrics import wilson
from tlkit.report import page
from tlkit.report.page import LARGEST, written
from tlkit.report.parts import PARTS, confusion


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def strict(text: str):
    """JSON without the words that JSON does not have."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def reported(run):
    return tlkit.write_report(run, tta="mirror,five")


@pytest.fixture(scope="module")
def data(reported):
    return strict((reported.folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def html(reported):
    return reported.page.read_text(encoding="utf-8")


def test_a_report_lies_in_the_run_folder_and_is_complete(run, reported, data):
    assert reported.folder == run / "report"
    there = {one.name for one in reported.folder.iterdir()}
    assert there == {"report.html", "report.json", *data["figures"]}
    assert data["figures"] == [
        "figure-calibration.png", "figure-confusion.png", "figure-curves.png", "figure-views.png",
    ]  # fmt: skip
    for name in data["figures"]:
        Image.open(reported.folder / name).verify()


def test_every_key_of_the_json_is_documented_and_there(data):
    assert list(data["parts"]) == list(PARTS.own)
    for name, part in PARTS.own.items():
        assert set(data["parts"][name]) == set(part.keys), name


def test_the_scores_are_those_of_evaluate(run, parts, reported, data):
    expected = tlkit.load(run).evaluate(parts)
    summary = data["parts"]["summary"]
    assert summary["accuracy"] == reported.scores.accuracy == expected.accuracy
    assert summary["accuracy_95"] == list(wilson(summary["right"], summary["images"]))
    assert summary["brier"] == pytest.approx(expected.brier)
    cells = np.zeros((3, 3), int)
    for row, column, count in data["parts"]["confusion"]["cells"]:
        cells[row, column] = count
    assert (cells == expected.confusion).all()
    assert reported.unreadable == 2
    files = {one["file"].rpartition("/")[2] for one in data["parts"]["data"]["unreadable"]}
    assert files == {"cut.png", "words.jpg"}


def test_views_stand_beside_the_plain_one_with_their_cost(data):
    rows = data["parts"]["views"]["policies"]
    assert [(one["policy"], one["views"]) for one in rows] == [
        ("plain", 1), ("mirror", 2), ("five", 5),
    ]  # fmt: skip
    assert all(one["seconds_per_image"] > 0 for one in rows)


def test_what_the_temperature_did_is_told(run, data):
    told = data["parts"]["calibration"]
    card = tlkit.load(run).card
    assert told["temperatures"] == [card.calibration.temperature]
    assert told["before"].keys() == {"calibration_error", "brier", "loss"}
    assert sum(one["images"] for one in told["bins"]) == data["parts"]["summary"]["images"]


def test_the_worst_photos_are_wrong_and_sorted_and_have_maps(data, html):
    worst = data["parts"]["photos"]["worst"]
    assert worst
    assert all(one["is"] != one["called"] for one in worst)
    sure = [one["probability"] for one in worst]
    assert sure == sorted(sure, reverse=True)
    assert "class activation map of" in html


def test_the_command_is_that_of_the_fit(parts, data):
    command = data["parts"]["origin"]["command"]
    assert command.startswith("tlkit fit ")
    assert command.endswith("--backbone tiny --on-bad skip")
    assert str(parts) in command


def test_findings_of_the_audit_are_on_the_page(data):
    assert data["parts"]["data"]["findings"]["unreadable"]["count"] == 2
    assert data["parts"]["data"]["serious"] >= 2


def test_names_are_text_whatever_they_look_like(html):
    seen = Elements(html)
    assert {tag for tag, _ in seen.found} & {"img", "script"} == {"img", "script"}
    assert sum(tag == "script" for tag, _ in seen.found) == 1
    for _, attributes in seen.found:
        assert not [one for one in attributes if one.startswith("on") or one == "style"]
    text = "".join(seen.text)
    assert '<img src=x onerror="alert(1)">' in text
    assert "قطط وكلاب" in text
    assert "\N{CAT FACE} & \N{DOG FACE}" in text
    assert "\u202e" not in html
    assert r"\u202e" in text


def test_nothing_is_fetched_from_anywhere(html):
    for tag, attributes in Elements(html).found:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, value)
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy


def test_a_report_is_replaced_as_a_whole_and_survives_a_failure(run, tmp_path, monkeypatch):
    place = tmp_path / "report"
    tlkit.write_report(run, out=place, tta="mirror", maps=False, check=False)
    tlkit.write_report(run, out=place, maps=False, check=False)
    assert not (place / "figure-views.png").exists()
    before = {one.name: one.read_bytes() for one in place.iterdir()}

    def fail(path, data):
        raise DiskError("no", found="a full disk", expected="room", do="free some")

    monkeypatch.setattr("tlkit.reporting.write_bytes", fail)
    with pytest.raises(DiskError):
        tlkit.write_report(run, out=place, maps=False, check=False)
    assert {one.name: one.read_bytes() for one in place.iterdir()} == before
    assert [one.name for one in tmp_path.iterdir()] == ["report"]


def test_a_folder_with_anything_else_is_not_replaced(run, colours, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(colours / "red", photos)
    with pytest.raises(RunFolderError):
        tlkit.write_report(run, out=photos)
    assert len(list(photos.iterdir())) == 8
    with pytest.raises(RunFolderError, match="one inside the other"):
        tlkit.write_report(run, out=colours / "report", folder=colours)


@pytest.mark.parametrize("name", ["report.html", "figure-1.png", "report.json"])
def test_what_only_looks_like_a_report_is_not_replaced(run, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    with pytest.raises(RunFolderError, match="is there already"):
        tlkit.write_report(run, out=tmp_path / "mine", maps=False, check=False)
    assert (tmp_path / "mine" / name).read_text() == "{}"


def test_a_run_with_a_report_can_be_fitted_anew(colours, tmp_path):
    first = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run")
    tlkit.write_report(first.run)
    tlkit.fit(colours, backbone="tiny", out=tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "report").exists()


def test_without_a_test_part_it_is_what_the_fit_has_written_down(validated):
    done = tlkit.write_report(validated)
    told = strict((done.folder / "report.json").read_text())["parts"]
    recorded = json.loads((validated / "metrics.json").read_text())["validation"]
    assert told["summary"]["judged_by_fit"] is True
    assert told["summary"]["of_fit"] == told["summary"]["images"]
    assert "the fit had itself" not in done.page.read_text()
    assert done.page.read_text().count("learnt from these images too") == 1
    assert "the temperature was learnt from them too" in done.page.read_text()
    for name in ("images", "accuracy", "loss", "brier", "calibration_error"):
        assert told["summary"][name] == pytest.approx(recorded[name]), name
    assert "data:image/jpeg" in done.page.read_text()
    with pytest.raises(OptionError, match="would be ignored"):
        tlkit.write_report(validated, tta="mirror")


def test_what_was_validated_is_in_the_run_folder(validated):
    told = runs.read_told(validated / runs.VALIDATION)
    assert runs.as_told(told) == (validated / runs.VALIDATION).read_text()
    assert told.probabilities.sum(axis=1) == pytest.approx(1)
    assert told.classes == ("blue", "green", "red")


def test_more_probabilities_than_a_fit_writes_down_need_a_folder(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MOST_TOLD", 3)
    run = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run").run
    assert not (run / runs.VALIDATION).exists()
    with pytest.raises(FolderError) as caught:
        tlkit.write_report(run)
    assert "tlkit report" in caught.value.do
    assert tlkit.write_report(run, colours, maps=False).scores.images == 24


def test_images_that_the_fit_had_are_counted_by_whatever_name(run, parts, colours, tmp_path):
    (tmp_path / "link").symlink_to(parts / "train")
    for folder, expected in ((parts / "train", 24), (tmp_path / "link", 24), (parts, 0)):
        done = tlkit.write_report(run, folder, out=tmp_path / "out", maps=False, check=False)
        told = strict((done.folder / "report.json").read_text())["parts"]["summary"]
        assert told["of_fit"] == expected
        assert (f"{expected} of these images the fit had" in done.page.read_text()) == bool(
            expected
        )


def test_photos_that_are_gone_leave_their_scores(colours, validated, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(validated, moved, ignore=shutil.ignore_patterns("report"))
    options = json.loads((moved / "options.json").read_text())
    (moved / "options.json").write_text(json.dumps(options | {"folder": "nowhere"}))
    done = tlkit.write_report(moved)
    text = done.page.read_text()
    assert "data:image/jpeg" not in text
    assert "no picture" in text
    assert "was not looked at" in text
    again = tlkit.write_report(moved, colours, out=tmp_path / "again", maps=False)
    summary = strict((again.folder / "report.json").read_text())["parts"]["summary"]
    assert summary["of_fit"] is None


@pytest.fixture
def elsewhere(colours, validated, tmp_path):
    """A run whose photos were moved: the run, where they were, where they are."""
    before, now = tmp_path / "before", tmp_path / "my photos"
    shutil.copytree(colours, now)
    run = tmp_path / "run"
    shutil.copytree(validated, run, ignore=shutil.ignore_patterns("report"))
    options = json.loads((run / "options.json").read_text())
    (run / "options.json").write_text(json.dumps(options | {"folder": str(before)}))
    return run, before, now


def test_photos_that_were_moved_are_missed_and_shown_again_from_the_new_place(elsewhere, caplog):
    run, before, now = elsewhere
    done = tlkit.write_report(run)
    said = caplog.text
    count = done.scores.images
    assert f"{count} of {count} photos are no longer in {before}" in said
    assert f"tlkit report {run} --photos FOLDER" in said
    assert f"{count} of {count} photos are no longer where" in done.page.read_text()
    caplog.clear()
    again = tlkit.write_report(run, photos=now)
    assert not caplog.text
    assert "data:image/jpeg" in again.page.read_text()
    assert again.scores.accuracy == done.scores.accuracy


def test_some_photos_that_are_gone_are_counted(elsewhere, caplog):
    run, before, now = elsewhere
    now.rename(before)
    named = runs.read_told(run / runs.VALIDATION).files
    for file in named[:2]:
        (before / file).unlink()
    done = tlkit.write_report(run, maps=False, check=False)
    assert f"2 of {len(named)} photos are no longer in {before}" in caplog.text
    assert "data:image/jpeg" in done.page.read_text()


def test_a_place_that_holds_no_photos_is_refused(elsewhere, tmp_path):
    run, _, _ = elsewhere
    with pytest.raises(FolderError, match="is not a folder"):
        tlkit.write_report(run, photos=tmp_path / "nowhere")


def test_a_report_on_other_images_says_that_it_cannot_tell_whether_the_fit_had_them(
    elsewhere, caplog
):
    run, before, now = elsewhere
    tlkit.write_report(run, now, maps=False, check=False)
    assert f"no longer in {before}, so it cannot be told" in caplog.text


def test_where_the_test_images_are_gone_the_validation_images_are_reported_and_that_is_said(
    elsewhere, caplog
):
    run, before, _ = elsewhere
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"test": metrics["validation"]}))
    done = tlkit.write_report(run, maps=False, check=False)
    assert f"the test images are no longer in {before}" in caplog.text
    assert "the images of the fit" in done.page.read_text() or (
        "the validation images" in done.page.read_text()
    )


def test_a_photo_that_has_changed_since_it_was_judged_is_not_shown(
    subject, colours, tmp_path, monkeypatch
):
    """Else the picture beside an answer would be another one than was answered for."""
    from tlkit.data.digests import states

    shutil.copytree(colours, tmp_path / "photos")
    catalog = scan(tmp_path / "photos")
    paths = tuple(catalog.paths)
    before, shown = states(catalog.paths), []
    paths[0].write_bytes(paths[1].read_bytes())

    def written(known):
        shown.append(known.paths)
        if len(shown) == 1:
            paths[5].unlink()
        return len(shown)

    monkeypatch.setattr(reporting, "written", written)
    rows = np.full((24, 3), 1 / 3)
    judged = subject(catalog.labels, rows, paths=paths)
    assert reporting._written_as_judged(judged, catalog, before) == 2
    assert shown[0] == (None, *paths[1:])
    assert shown[1] == (None, *paths[1:5], None, *paths[6:])


def test_folds_are_told_by_the_heads_that_had_not_learnt(colours, tmp_path):
    crossed = tlkit.fit(colours, backbone="tiny", folds=2, out=tmp_path / "run")
    done = tlkit.write_report(crossed.run)
    assert done.scores.images == 24
    assert done.scores.accuracy == crossed.out_of_fold.accuracy
    told = strict((done.folder / "report.json").read_text())["parts"]
    assert len(told["calibration"]["temperatures"]) == 2
    assert told["calibration"]["before"] is None
    assert told["summary"]["over_folds"]["accuracy"]["mean"] > 0
    assert "curves" not in told
    assert "several" in done.page.read_text()
    together = tlkit.write_report(crossed.run, colours, out=tmp_path / "together")
    assert together.scores.images == 24


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("options.json", "{"),
        ("metrics.json", "\x00"),
        ("history.csv", "number,rate\n1,2\n"),
        ("validation.csv", "path,class\n"),
        ("validation.csv", "path,class,probability_red\nx,red,much\n"),
        ("history.csv", None),
    ],
)
def test_a_run_folder_that_was_spoilt_is_one_error(validated, tmp_path, name, text):
    spoilt = tmp_path / "run"
    shutil.copytree(validated, spoilt, ignore=shutil.ignore_patterns("report"))
    if text is None:
        text = re.sub(r"(?m)^(\d+),[^,]+", r"\1,inf", (spoilt / name).read_text())
    (spoilt / name).write_text(text)
    with pytest.raises(RunFolderError, match=re.escape(name)):
        tlkit.write_report(spoilt)
    assert not (spoilt / "report").exists()


def test_a_path_out_of_the_folder_is_not_followed(validated, colours, tmp_path):
    spoilt = tmp_path / "run"
    shutil.copytree(validated, spoilt, ignore=shutil.ignore_patterns("report"))
    lines = (spoilt / "validation.csv").read_text().splitlines()
    secret = tmp_path / "secret"
    shutil.copytree(colours, secret)
    rows = [f"{secret}/{one}" for one in lines[1:]]
    (spoilt / "validation.csv").write_text("\n".join([lines[0], *rows, ""]))
    assert "data:image/jpeg" not in tlkit.write_report(spoilt).page.read_text()


def test_metrics_that_somebody_edited_are_left_out(validated, tmp_path):
    edited = tmp_path / "run"
    shutil.copytree(validated, edited, ignore=shutil.ignore_patterns("report"))
    (edited / "metrics.json").write_text('{"validation": {"accuracy": "<b>", "images": NaN}}')
    done = tlkit.write_report(edited)
    told = strict((done.folder / "report.json").read_text())
    assert told["parts"]["summary"]["recorded"] == {}


@pytest.mark.parametrize(
    "found",
    [
        "x",
        [1],
        {"accuracy": {"mean": "<b>", "std": 0, "min": 0, "max": 0}},
        {"accuracy": {"mean": float("nan"), "std": 0, "min": 0, "max": 0}},
        {"accuracy": {"mean": 10**400, "std": 0, "min": 0, "max": 0}},
        {"loss": {}},
    ],
)
def test_spreads_over_folds_that_somebody_edited_are_left_out(drawn, found):
    edited = {"over_folds": found, "validation": {"images": 10**400, "accuracy_95": [0, 1]}}
    summary = written(drawn(6, 3, recorded=edited)).data["parts"]["summary"]
    assert summary["over_folds"] is None
    assert summary["recorded"] == {}


def test_names_that_are_no_text_are_escaped_in_the_json(validated, tmp_path):
    odd = tmp_path / "run"
    shutil.copytree(validated, odd, ignore=shutil.ignore_patterns("report"))
    told = json.loads((odd / "options.json").read_text()) | {"given": {"head": "\ud800"}}
    (odd / "options.json").write_text(json.dumps(told))
    done = tlkit.write_report(odd, maps=False, check=False)
    report = strict((done.folder / "report.json").read_text(encoding="ascii"))
    assert "\ud800" in report["parts"]["origin"]["command"]


def test_a_thousand_classes_are_a_picture_and_the_largest_confusions(drawn):
    report = written(drawn(4000, 1000))
    assert len(report.html.encode()) < LARGEST
    assert "1,000 classes are too many for a table" in report.html
    assert "Each point stands for 2 &times; 2 cells" in report.html
    assert '<table class="matrix">' not in report.html
    assert len(report.data["parts"]["confusion"]["pairs"]) == confusion.MOST_PAIRS
    assert len(report.data["parts"]["classes"]["classes"]) == 1000
    strict(json.dumps(report.data))


def test_no_confusion_is_lost_from_the_picture():
    import base64
    import io

    table = np.zeros((1001, 1001), np.int64)
    table[1000, 3] = table[3, 3] = 1
    data = confusion._picture(table).partition(",")[2]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (334, 334, 4)
    assert np.argwhere(pixels[:, :, 3]).tolist() == [[1, 1], [333, 1]]


@pytest.mark.parametrize("classes", [2, 5, 31])
def test_one_image_a_class_will_do(drawn, classes):
    report = written(drawn(classes, classes))
    assert report.data["parts"]["summary"]["images"] == classes
    assert ('<table class="matrix">' in report.html) == (classes <= confusion.MOST_CELLS)


def test_classes_without_images_have_no_recall(subject):
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    report = written(subject(np.array([0, 0]), probabilities))
    rows = report.data["parts"]["classes"]["classes"]
    assert [one["recall"] for one in rows] == [0.5, None, None]
    assert rows[2]["precision_95"] is None
    assert report.data["parts"]["summary"]["absent"] == ["class 0001", "class 0002"]


def test_fifty_thousand_images_make_no_larger_page(drawn, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    names = tuple(("<&'\"" * 60)[:250] + str(number) for number in range(30))
    paths = (tmp_path / "noise.jpg",) * 50_000
    report = written(drawn(50_000, 30, names=names, paths=paths))
    assert 2 << 20 < len(report.html.encode()) < LARGEST
    assert "there was room for those of the largest confusions only" in report.html


def test_numbers_that_are_none_are_null(subject, run):
    from tlkit.train.events import Epoch

    nan = float("nan")
    history = tuple(
        Epoch(
            number=one,
            rate=0.1,
            train_loss=nan,
            val_loss=nan if one < 3 else 1.0,
            val_accuracy=0.5,
            val_balanced_accuracy=0.5,
            wall_s=1.0,
        )
        for one in (1, 2, 3)
    )
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    report = written(subject(np.array([0, 1]), probabilities, history=history))
    strict(json.dumps(report.data))
    assert report.data["parts"]["curves"]["epochs"][0]["train_loss"] is None
    assert "nan" not in report.html.partition("<script>")[0].lower()


def test_the_policy_names_the_very_script_and_style_of_the_page(html):
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        from tlkit.report.html import _digest

        assert f"{kind} &#39;{_digest(content)}&#39;" in html


def test_the_limit_of_the_page_is_the_sum_of_its_parts():
    from tlkit.report.parts import data, photos

    budgets = confusion.PHOTO_BYTES + data.PHOTO_BYTES + 2 * photos.PHOTO_BYTES
    assert budgets + 4 * page.LARGEST_PART < LARGEST
