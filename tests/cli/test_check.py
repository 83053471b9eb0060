"""`tlkit check`: what it prints, writes, moves and returns."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import tlkit
from tlkit import checking, runs


@pytest.fixture
def photos(tmp_path):
    """Two classes of noise, with a copy in both, a broken file, and a name that is markup."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    folder = tmp_path / "photos"
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "1.png").read_bytes())
    (folder / "a" / "<b>x&amp;.jpg").write_bytes(b"words")
    return folder


def test_findings_are_listed_and_end_with_status_1(run, photos):
    done = run("check", photos)
    assert done.exit_code == 1
    assert "14 images of 2 classes" in done.output
    assert "unreadable: a/<b>x&amp;.jpg  not an image that Pillow knows" in done.output
    assert "conflict: a/1.png  b/copy.png  the same bytes; classes a, b" in done.output


def test_a_clean_folder_ends_with_status_0(run, photos):
    (photos / "b" / "copy.png").unlink()
    (photos / "a" / "<b>x&amp;.jpg").unlink()
    done = run("check", photos)
    assert (done.exit_code, done.output) == (0, "12 images of 2 classes\nnothing was found\n")


def test_what_was_found_is_moved_and_put_back(run, photos):
    before = sorted(photos.rglob("*"))
    done = run("check", photos, "--fix")
    assert done.exit_code == 0
    assert "moved 3 files" in done.output
    assert "nothing was found" in run("check", photos).output
    assert "put back 3 files" in run("check", photos, "--undo").output
    assert sorted(photos.rglob("*")) == before


def test_only_some_kinds_are_told_and_moved(run, photos):
    done = run("check", photos, "--only", "unreadable, leak", "--fix")
    assert "conflict" not in done.output
    assert "moved 1 files" in done.output
    assert (photos / "b" / "copy.png").exists()


def test_json_has_everything_and_goes_to_a_file_or_a_pipe(run, photos, tmp_path):
    run("check", photos, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert json.loads(run("check", photos, "--json", "-").stdout) == found
    assert [one["kind"] for one in found["findings"]] == ["unreadable", "conflict"]
    assert found["findings"][1]["files"] == ["a/1.png", "b/copy.png"]
    assert found["classes"] == {"a": 7, "b": 7}


def test_the_page_shows_thumbnails_and_escapes_names(run, photos, tmp_path):
    run("check", photos, "--html", tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "a/&lt;b&gt;x&amp;amp;.jpg" in page
    assert "<b>x" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "leek"], "did you mean 'leak'"),
        (["--labels", "nowhere"], "no out-of-fold probabilities"),
        (["--only", "label"], "--labels RUN"),
        (["--only", "leak", "--labels", "run"], "label among the kinds"),
        (["--workers", "-1"], "--workers"),
    ],
)
def test_what_cannot_work_is_one_error(run, photos, words, message):
    done = run("check", photos, *words)
    assert done.exit_code == 2
    assert message in done.output


def test_a_folder_that_is_none_is_one_error(run, tmp_path):
    assert run("check", tmp_path / "nowhere").exit_code == 2


def test_labels_in_doubt_are_those_that_other_heads_doubt(photos, tmp_path):
    pytest.importorskip("cleanlab")
    random = np.random.default_rng(0)
    rows, names = [], [f"{label}/{number}.png" for label in "ab" for number in range(6)]
    for name in names:
        sure = random.uniform(0.8, 0.95)
        right = sure if name[0] == "a" else 1 - sure
        right = {"a/3.png": 0.01, "b/2.png": 0.65}.get(name, right)
        rows.append([name, name[0], 1, right, 1 - right])
    run = tmp_path / "run"
    run.mkdir()
    table = runs.as_csv(["path", "class", "fold", "probability_a", "probability_b"], rows)
    (run / runs.OUT_OF_FOLD).write_text(table)
    found = tlkit.check(photos, labels=str(run), only="label").findings
    # The other is less sure than the heads are of the class that it looks like, and still named.
    assert [one.files for one in found] == [("a/3.png",), ("b/2.png",)]
    assert found[0].about.startswith("stands in a (")
    assert found[0].about.endswith("looks like b")
    (run / runs.OUT_OF_FOLD).write_text(table.replace("/", "/else/"))
    with pytest.raises(tlkit.TlkitError, match="not of this folder"):
        tlkit.check(photos, labels=str(run))


def test_a_photo_that_a_link_leads_to_is_not_taken_from_under_it(photos):
    for part in ("train", "test"):
        (photos.parent / "parts" / part).mkdir(parents=True)
    for label in ("a", "b"):
        (photos / label).rename(photos.parent / "parts" / "train" / label)
        (photos.parent / "parts" / "test" / label).mkdir()
    parts = photos.parent / "parts"
    (parts / "train" / "a" / "0-link.png").symlink_to("2.png")
    (parts / "test" / "a" / "x.png").symlink_to("../../train/a/3.png")
    (parts / "test" / "b" / "y.png").write_bytes((parts / "train" / "b" / "4.png").read_bytes())
    moved = checking.fix(tlkit.check(parts, only="duplicate,leak"))
    assert {one.file for one in moved} == {"train/a/0-link.png", "train/b/4.png"}
    assert all(one.exists() for one in parts.rglob("*") if ".quarantine" not in one.parts)


def test_a_run_that_names_files_elsewhere_is_not_followed(photos, tmp_path):
    pytest.importorskip("cleanlab")
    (tmp_path / "secret.png").write_bytes((photos / "a" / "0.png").read_bytes())
    run = tmp_path / "run"
    run.mkdir()
    header = ["path", "class", "fold", "probability_a", "probability_b"]
    names = [f"{label}/{number}.png" for label in "ab" for number in range(6)]
    rows = [[one, one[0], 1, *((0.9, 0.1) if one[0] == "a" else (0.1, 0.9))] for one in names]
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        table = runs.as_csv(header, [*rows, [path, "a", 1, 0.01, 0.99]])
        (run / runs.OUT_OF_FOLD).write_text(table)
        assert tlkit.check(photos, labels=str(run), only="label").findings == ()
    (run / runs.OUT_OF_FOLD).write_text(runs.as_csv(header, [["x" * 200_000, "a", 1, 0.5, 0.5]]))
    with pytest.raises(tlkit.TlkitError, match="no out-of-fold probabilities"):
        tlkit.check(photos, labels=str(run), only="label")
