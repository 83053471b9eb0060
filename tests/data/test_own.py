"""Own: what tlkit has written is known again, and is never taken for photos."""

import logging

import pytest

import tlkit
from tlkit.data.folder import find_images, scan, scan_parts
from tlkit.data.own import KINDS, kind_at, kind_of
from tlkit.errors import FolderError
from tlkit.testing import make_folder

PLOTS = [kind for kind in KINDS if not kind.has_photos]
WITH_PHOTOS = [kind for kind in KINDS if kind.has_photos]


def written(folder, kind):
    """A folder of that kind, with a plot in it and one below it."""
    (folder / "more").mkdir(parents=True)
    for name in (*kind.files, "plot.png", "more/plot.png"):
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def photos(tmp_path):
    return make_folder(tmp_path / "photos", classes=("blue", "red"), per_class=2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.files[0])
def test_a_folder_is_known_by_its_files_and_by_no_part_of_them(tmp_path, kind):
    folder = written(tmp_path / "own", kind)
    assert kind_at(folder) == kind_of(sorted([*kind.files, "a.png", "z.png"])) == kind
    (folder / kind.files[0]).unlink()
    assert kind_at(folder) is None
    assert kind_of(sorted([*kind.files[1:], "a.png"])) is None
    assert kind_of([]) is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.files[0])
def test_what_tlkit_has_written_below_a_folder_is_left_out_and_counted(
    tmp_path, photos, caplog, kind
):
    before = list(find_images([photos]))
    written(photos / "own", kind)
    written(photos / "red" / "own", kind)
    with caplog.at_level(logging.WARNING, logger="tlkit"):
        assert list(find_images([photos])) == before
    plots = 2 * (2 + sum(name.endswith(".png") for name in kind.files))
    assert f"{plots} pictures" in caplog.text
    assert str(photos / "red" / "own") in caplog.text
    catalog = scan(photos)
    assert (catalog.classes, list(catalog.paths)) == (("blue", "red"), before)
    assert any("written by tlkit" in text for text in catalog.left_out)


@pytest.mark.parametrize("kind", PLOTS, ids=lambda kind: kind.files[0])
def test_plots_of_tlkits_own_are_refused_where_they_are_named_as_images(tmp_path, photos, kind):
    folder = written(tmp_path / "own", kind)
    for named in (folder, folder / "plot.png"):
        with pytest.raises(FolderError) as caught:
            find_images([photos, named])
        assert kind.about in caught.value.found
    for look in (scan, scan_parts):
        with pytest.raises(FolderError, match="written"):
            look(folder)


@pytest.mark.parametrize("kind", WITH_PHOTOS, ids=lambda kind: kind.files[0])
def test_photos_that_tlkit_has_put_somewhere_may_be_named(photos, kind):
    for name in kind.files:
        (photos / name).write_bytes(b"")
    assert len(find_images([photos])) == 4
    assert scan(photos).classes == ("blue", "red")


def test_a_run_among_the_images_is_refused_with_the_command_that_was_meant(photos, tmp_path):
    run = written(tmp_path / "my run", KINDS[0])
    for head in (run, run / "head.safetensors"):
        with pytest.raises(FolderError) as caught:
            find_images([head, photos])
        assert caught.value.do.endswith(f"tlkit predict {photos} --head '{head}'")


def test_pictures_of_a_run_are_never_answers(colours, tmp_path):
    run = tlkit.fit(colours, backbone="tiny", epochs=1, out=tmp_path / "run").run
    head = tlkit.load(run)
    for ask in (head.predict, head.evaluate, lambda path: head.predict([path, colours])):
        with pytest.raises(FolderError):
            ask(run)
    (tmp_path / "all").mkdir()
    run.rename(tmp_path / "all" / "run")
    (tmp_path / "all" / "photo.png").write_bytes((next(colours.rglob("*.png"))).read_bytes())
    assert [one.path.name for one in head.predict(tmp_path / "all")] == ["photo.png"]
