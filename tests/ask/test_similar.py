"""What is most like an image: found, held against chance, and shown."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import tlkit
from tlkit.ask import similar as module
from tlkit.cli import main
from tlkit.errors import FolderError, ImageError, OptionError, RunFolderError
from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def head(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run


def names(found):
    return [one.path.parent.name for one in found.neighbours]


def test_photos_of_one_colour_are_alike(colours, tmp_path):
    other = make_folder(tmp_path / "other", per_class=1, seed=5)
    found = tlkit.similar(
        [other / "red", other / "blue" / "000.png"], colours, backbone="tiny", count=8
    )
    assert [one.image.parent.name for one in found.found] == ["red", "blue"]
    for one in found.found:
        assert names(one) == [one.image.parent.name] * 8
        similarities = [each.similarity for each in one.neighbours]
        assert similarities == sorted(similarities, reverse=True)
    assert found.photos == 24


def test_an_image_is_not_its_own_neighbour_under_any_name(colours, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=3)
    image = folder / "red" / "000.png"
    (folder / "red" / "link.png").symlink_to(image)
    (found,) = tlkit.similar(image, folder, backbone="tiny", count=100).found
    assert len(found.neighbours) == 8
    assert not {"000.png", "link.png"} & {
        one.path.name for one in found.neighbours if one.path.parent.name == "red"
    }
    (folder / "red" / "copy.png").write_bytes(image.read_bytes())
    (found,) = tlkit.similar(image, folder, backbone="tiny", count=1).found
    assert found.neighbours[0].path.name == "copy.png"
    assert found.neighbours[0].similarity == pytest.approx(1, abs=1e-6)


def test_the_share_of_random_pairs_lies_in_its_interval_and_falls(colours):
    (found,) = tlkit.similar(colours / "red" / "000.png", colours, backbone="tiny", count=23).found
    shares = [one.above for one in found.neighbours]
    assert shares == sorted(shares, reverse=True)
    for one in found.neighbours:
        assert 0 <= one.above_low <= one.above <= one.above_high <= 1
        assert one.above_high - one.above_low < 0.025
    assert shares[0] > 0.5 > shares[-1]


def test_features_are_those_of_a_head_where_one_is_named(colours, head):
    image = colours / "red" / "000.png"
    found = tlkit.similar(image, colours, head=head, count=7)
    assert names(found.found[0]) == ["red"] * 7
    assert found.features == f"in front of the head {head / 'head.safetensors'}"
    with pytest.raises(OptionError, match="--backbone vgg11"):
        tlkit.similar(image, colours, head=head, backbone="vgg11")


def test_several_heads_are_refused(colours, tmp_path):
    run = tlkit.fit(colours, backbone="tiny", folds=2, out=tmp_path / "run").run
    with pytest.raises(OptionError, match="several heads"):
        tlkit.similar(colours / "red" / "000.png", colours, head=run)


def test_a_folder_of_one_photo_has_no_pairs(colours, tmp_path):
    folder = make_folder(tmp_path / "one", ("red",), per_class=1)
    found = tlkit.similar(colours / "blue" / "000.png", folder, backbone="tiny")
    (near,) = found.found[0].neighbours
    assert found.pairs is None
    assert (near.above, near.above_low, near.above_high) == (0.0, 0.0, 1.0)
    assert "random" not in module.in_words(found)
    alone = tlkit.similar(folder / "red" / "000.png", folder, backbone="tiny", out="alone")
    assert alone.found[0].neighbours == ()


def test_the_page_and_the_numbers_agree(colours, tmp_path):
    image = colours / "red" / "000.png"
    found = tlkit.similar(image, colours, backbone="tiny", count=4, out=tmp_path / "like")
    told = json.loads((tmp_path / "like" / "similar.json").read_text())
    (one,) = told["found"]
    assert one["image"] == str(image)
    assert [each["path"] for each in one["neighbours"]] == [
        str(each.path) for each in found.found[0].neighbours
    ]
    assert told["options"]["count"] == 4
    assert np.all(np.diff([told["random_pairs"][q] for q in ("q05", "q50", "q95")]) >= 0)
    page = (tmp_path / "like" / "similar.html").read_text()
    assert page.count("<img") == 5


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"images": "nowhere.png"}, FolderError),
        ({"images": "broken.png"}, ImageError),
        ({"folder": "empty"}, FolderError),
        ({"out": "photos/like"}, RunFolderError),
        ({"count": 0}, OptionError),
        ({"freeze": "none"}, OptionError),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path, change, error):
    make_folder(tmp_path / "photos", per_class=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"none")
    before = sorted(tmp_path.rglob("*"))
    asked = {
        "images": "photos/red/000.png", "folder": "photos", "out": "like", "backbone": "tiny",
    } | change  # fmt: skip
    with pytest.raises(error):
        tlkit.similar(asked.pop("images"), asked.pop("folder"), **asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_prints_a_table_for_each_image(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=3)
    (folder / "red" / "broken.png").write_bytes(b"none")
    images = [str(folder / "red" / "000.png"), str(folder / "blue" / "001.png")]
    done = CliRunner().invoke(
        main, ["similar", *images, str(folder), "-n", "2", "--backbone", "tiny"]
    )
    assert done.exit_code == 1, done.output
    assert done.stdout.count("like /") == 2
    assert "9 photos searched" in done.stdout
    assert "page and numbers: runs/photos-similar" in done.stdout
    assert "broken.png" in done.stderr
    assert (tmp_path / "runs" / "photos-similar" / "similar.html").is_file()


def test_an_interrupted_command_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    folder = make_folder(tmp_path / "photos", per_class=2)
    monkeypatch.setattr(module, "page", interrupt)
    words = ["similar", str(folder / "red" / "000.png"), str(folder), "--out", "like"]
    done = CliRunner().invoke(main, [*words, "--backbone", "tiny"])
    assert done.exit_code == 130
    assert [one.name for one in tmp_path.iterdir()] == ["photos"]
