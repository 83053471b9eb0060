"""`tlkit sort` and `tlkit compare`: what stands on the terminal, and how they end."""

from tlkit.testing import make_folder


def test_sort_tells_how_many_and_undo_takes_back(run, fitted, tmp_path):
    photos = make_folder(tmp_path / "photos", per_class=2)
    before = sorted(photos.rglob("*.*"))
    result = run("sort", fitted, photos, "--into", tmp_path / "out", "--by", "move")
    assert result.exit_code == 0, result.output
    assert "moved 6 photos" in result.stdout
    assert "likely in the wrong folder" in result.stdout
    assert not list(photos.rglob("*.*"))
    result = run("sort", "--undo", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(photos.rglob("*.*")) == before


def test_sort_names_what_stays(run, fitted, tmp_path):
    photos = make_folder(tmp_path / "photos", per_class=1)
    (photos / "bad.jpg").write_bytes(b"none")
    result = run("sort", fitted, photos, "--into", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.jpg" in result.stderr
    assert "1 photos stay" in result.stderr
    next(photos.rglob("*.png"), next(photos.rglob("*.jpg"))).unlink()
    assert run("sort", "--undo", tmp_path / "out").exit_code == 0


def test_wrong_words_are_refused(run, fitted, colours, tmp_path):
    for words in (
        (fitted, colours),
        (fitted,),
        ("--into", tmp_path / "out"),
        ("--undo", tmp_path, "--by", "move"),
        ("--undo", tmp_path / "none"),
        (fitted, colours, "--into", colours / "out"),
        (fitted, tmp_path / "none", "--into", tmp_path / "out"),
        (fitted, colours, "--into", tmp_path / "out", "--by", "magic"),
    ):
        result = run("sort", *words)
        assert result.exit_code == 2, words
        assert "found" in result.stderr
        assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(run, fitted, colours, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tlkit.sorting.place", stop)
    result = run("sort", fitted, colours, "--into", tmp_path / "out")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_compare_says_who_is_better(run, fitted, tmp_path):
    test = make_folder(tmp_path / "test", per_class=3)
    result = run("compare", fitted, fitted, "--on", test)
    assert result.exit_code == 0, result.output
    assert "9 images do not tell" in result.stdout
    assert "images/s" in result.stdout
    assert list((tmp_path / "runs").glob("*-compare/compare.json"))
    result = run("compare", fitted, "--on", test)
    assert result.exit_code == 2
    assert "two or more" in result.stderr
