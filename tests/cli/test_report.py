"""`tlkit report` and `tlkit fit --report`: what they print, and how they end."""

from __future__ import annotations

import json

import pytest

from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    place = tmp_path_factory.mktemp("parted") / "photos"
    make_folder(place / "train")
    make_folder(place / "test", per_class=3, seed=1)
    return place


def test_the_newest_run_is_reported_and_a_bare_tta_is_mirror(run, parted, tmp_path):
    assert run("fit", parted, "--backbone", "tiny").exit_code == 0
    done = run("report", "--no-maps", "--tta", "--tta", "five")
    assert done.exit_code == 0, done.output
    (place,) = (tmp_path / "runs").glob("*/report")
    assert "report.html" in done.stdout
    told = json.loads((place / "report.json").read_text())["parts"]["views"]["policies"]
    assert [one["policy"] for one in told] == ["plain", "mirror", "five"]


def test_a_fit_writes_one_where_it_is_asked_to(run, parted, tmp_path):
    done = run("fit", parted, "--backbone", "tiny", "--out", "run", "--report")
    assert done.exit_code == 0, done.output
    assert "of 9 images; run/report/report.html" in done.stdout
    assert (tmp_path / "run" / "report" / "report.html").exists()
    assert run("fit", parted, "--backbone", "tiny", "--out", "other").exit_code == 0
    assert not (tmp_path / "other" / "report").exists()


def test_unreadable_images_end_with_status_1(run, fitted, tmp_path):
    folder = make_folder(tmp_path / "photos")
    (folder / "red" / "words.jpg").write_text("words")
    done = run("report", fitted, folder, "--out", "report", "--no-maps")
    assert done.exit_code == 1
    assert "images that could not be read: 1" in done.stderr
    assert "words.jpg" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nothing at that path"),
        ([], "there is no run yet"),
        (["RUN", "nowhere"], "nothing at that path"),
        (["RUN", "PHOTOS", "--tta", "mirrow"], "did you mean 'mirror'"),
        (["RUN", "--tta", "mirror"], "--tta mirror"),
        (["RUN", "--no-check", "--no-near"], "--check"),
        (["RUN", "PHOTOS", "--weights", "x.pth"], "--weights x.pth"),
        (["RUN", "--no-maps", "--weights", "x.pth"], "--weights x.pth"),
        (["RUN", "--batch", "0"], "--batch"),
        (["RUN", "--out", "PHOTOS"], "is there already"),
        (["RUN/head.safetensors"], "is not a run folder"),
    ],
)
def test_what_cannot_work_is_one_error(run, fitted, colours, words, message):
    before = sorted(fitted.rglob("*"))
    named = {"RUN": str(fitted), "PHOTOS": str(colours)}
    words = [named.get(one, one.replace("RUN/", f"{fitted}/")) for one in words]
    done = run("report", *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert sorted(fitted.rglob("*")) == before


def test_an_empty_run_folder_says_what_is_missing(run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("report", "empty")
    assert done.exit_code == 2
    assert "no head.safetensors in it" in done.stderr
    assert "tlkit report RUN FOLDER" in done.stderr


def test_a_fit_on_a_weight_file_reports_without_being_told_of_it_again(run, parted, tmp_path):
    from safetensors.torch import save_file

    from tlkit.testing import TINY
    from tlkit.weights import obtain

    save_file(dict(obtain(TINY.weights(), "default").state), tmp_path / "own.safetensors")
    words = ["--backbone", "tiny", "--weights", "own.safetensors", "--out", "run"]
    done = run("fit", parted, *words, "--report")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "report" / "report.html").exists()
    assert run("report", "run").exit_code == 2
    assert run("report", "run", "--weights", "own.safetensors").exit_code == 0


def test_a_fit_that_has_ended_is_reported_when_it_is_asked_for_again(run, parted, tmp_path):
    words = ("fit", parted, "--backbone", "tiny", "--out", tmp_path / "made", "--resume")
    assert run(*words).exit_code == 0
    again = run(*words, "--report")
    assert again.exit_code == 0, again.output
    assert "has ended" in again.stderr
    assert (tmp_path / "made" / "report" / "report.html").is_file()
