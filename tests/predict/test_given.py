"""Given: every image that is asked about is answered, wherever it lies, in the order of asking."""

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFile

import tlkit
from tlkit.cli import main
from tlkit.data.folder import scan
from tlkit.errors import DataError
from tlkit.predict.given import given_images


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run


@pytest.fixture
def head(run):
    return tlkit.load(run)


@pytest.fixture
def paths(colours):
    return list(scan(colours).paths)


def names(answers):
    return [answer.path for answer in answers]


def test_a_path_that_is_named_twice_is_answered_twice_in_its_places(head, paths):
    asked = [paths[0], paths[9], paths[0], paths[0], paths[20]]
    answers = head.predict(asked)
    assert names(answers) == asked
    assert np.array_equal(answers[0].probabilities, answers[2].probabilities)


def test_the_command_line_answers_as_often_as_a_path_is_named(run, paths):
    asked = [str(paths[0]), str(paths[9]), str(paths[0])]
    done = CliRunner().invoke(main, ["predict", *asked, "--head", str(run), "--format", "csv"])
    assert [line.split(",")[0] for line in done.stdout.splitlines()[1:]] == asked


def test_explain_makes_a_picture_for_each_path_that_is_named(run, paths, tmp_path):
    words = ["explain", str(paths[0]), str(paths[0]), "--head", str(run), "--out", "why"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "why").glob("*.png"))) == 2


def test_similar_answers_for_each_image_that_is_named_and_searches_each_photo_once(colours, paths):
    found = tlkit.similar([paths[0], paths[0]], [colours, colours / "blue"], backbone="tiny")
    assert [one.image for one in found.found] == [paths[0], paths[0]]
    assert found.photos == len(paths)


@pytest.mark.parametrize(
    "folders", [("", "blue"), ("blue", ""), ("", ""), ("blue", "blue/../blue")], ids=str
)
def test_only_folders_that_overlap_are_merged_and_that_is_said(head, colours, folders, caplog):
    answers = head.predict([colours / folder for folder in folders])
    files = [Path(path).resolve() for path in names(answers)]
    assert len(set(files)) == len(files)
    assert len(files) == (8 if "" not in folders else 24)
    assert "in more than one of the folders" in caplog.text
    assert "8 images" in caplog.text or "24 images" in caplog.text


def test_a_file_and_the_folder_that_holds_it_are_two_questions(head, colours, paths, caplog):
    answers = head.predict([paths[0], colours])
    assert names(answers) == [paths[0], *paths]
    assert not caplog.text


def test_a_pattern_answers_once_for_what_lies_in_a_folder_that_it_matches(run, colours):
    done = CliRunner().invoke(
        main, ["predict", f"{colours}/**", "--head", str(run), "--format", "csv"]
    )
    assert len(done.stdout.splitlines()) == 1 + 24


@pytest.mark.parametrize(
    "kind",
    [list, tuple, iter, np.array, lambda some: np.array([str(one) for one in some])],
    ids=["list", "tuple", "iterator", "array of paths", "array of text"],
)
def test_any_sequence_of_paths_is_taken_in_order(head, paths, kind):
    some = [paths[7], paths[1], paths[12]]
    assert names(head.predict(kind(some))) == some


def test_text_bytes_and_columns_of_tables_are_paths(head, paths):
    pandas = pytest.importorskip("pandas")
    path = paths[3]
    for asked in (str(path), bytes(path), [bytes(path)], pandas.Series([str(path)], index=[5])):
        assert names(head.predict(asked)) == [path]


def in_memory(path):
    with Image.open(path) as image:
        image.load()
        pixels = np.asarray(image)
    return {
        "image": image,
        "array": pixels,
        "strided": np.asfortranarray(pixels),
        "opaque": np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        "bytes": path.read_bytes(),
        "stream": io.BytesIO(path.read_bytes()),
    }


def test_an_image_in_memory_gets_the_answer_of_its_file(head, paths):
    path = paths[5]
    (wanted,) = head.predict(path)
    for kind, image in in_memory(path).items():
        (answer,) = head.predict(image)
        assert np.allclose(answer.probabilities, wanted.probabilities, atol=1e-6), kind
        assert answer.path == Path("image 0")


def test_bytes_of_every_kind_are_a_file(head, paths):
    data = paths[5].read_bytes()
    (wanted,) = head.predict(data)
    for same in (bytearray(data), memoryview(data)):
        (answer,) = head.predict(same)
        assert np.array_equal(answer.probabilities, wanted.probabilities)


def test_a_file_that_is_closed_or_gives_text_is_refused_in_words(paths):
    with paths[5].open("rb") as closed:
        pass
    with paths[5].open(encoding="utf-8") as text:
        for file in (closed, text):
            with pytest.raises(DataError, match="image 0"):
                given_images(file)


def test_an_image_that_is_cut_off_is_no_answer_whatever_the_program_lets_pillow_load(
    head, paths, tmp_path, monkeypatch
):
    whole = paths[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(tmp_path / "cut.png") as cut:
        (answer,) = head.predict(cut)
    assert isinstance(answer, tlkit.BadImage)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_an_open_file_is_an_image(head, paths):
    with paths[5].open("rb") as file:
        (answer,) = head.predict(file)
    assert answer.label == head.predict(paths[5])[0].label


def test_images_in_memory_and_paths_are_answered_in_one_order(head, paths):
    with Image.open(paths[9]) as image:
        answers = head.predict([paths[0], image, paths[20], image])
    assert names(answers) == [paths[0], Path("image 1"), paths[20], Path("image 3")]
    wanted = head.predict([paths[0], paths[9], paths[20], paths[9]])
    for answer, other in zip(answers, wanted, strict=True):
        assert np.allclose(answer.probabilities, other.probabilities, atol=1e-6)


def test_an_array_of_images_is_so_many_images(head, paths):
    stack = np.stack([np.asarray(Image.open(path)) for path in paths[:3]])
    assert names(head.predict(stack)) == [Path(f"image {i}") for i in range(3)]


def test_a_photo_in_memory_is_turned_upright_as_its_file_is(head, paths, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(paths[0]).save(tmp_path / "turned.png", exif=exif)
    (wanted,) = head.predict(tmp_path / "turned.png")
    with Image.open(tmp_path / "turned.png") as turned:
        (answer,) = head.predict(turned)
    assert np.allclose(answer.probabilities, wanted.probabilities, atol=1e-6)


def test_an_image_in_memory_that_cannot_be_decoded_is_named_in_its_place(head, paths, tmp_path):
    whole = paths[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "cut.png") as cut:
        good, *bad = head.predict([paths[0], cut, b"\0 no image", whole[: len(whole) // 2]])
    assert good.path == paths[0]
    assert [one.path for one in bad] == [Path(f"image {i}") for i in (1, 2, 3)]
    assert all(isinstance(one, tlkit.BadImage) for one in bad)


@pytest.mark.parametrize(
    "images",
    [
        None,
        5,
        [],
        np.array(3),
        {},
        [None],
        [5],
        [[Path("a.jpg")]],
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 3), "U3"),
    ],
    ids=repr,
)
def test_what_is_no_image_is_refused_in_words(images):
    with pytest.raises(tlkit.TlkitError) as caught:
        given_images(images)
    assert "path" in str(caught.value) or "image" in str(caught.value)


def test_a_table_is_refused_since_its_names_of_columns_are_no_paths():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(tlkit.TlkitError, match="column with the paths"):
        given_images(pandas.DataFrame({"path": ["a.jpg"]}))


def test_every_function_says_which_path_is_none(head, run, tmp_path):
    for call in (
        lambda: tlkit.fit(None),
        lambda: tlkit.fit(5),
        lambda: tlkit.fit("photos", out=5),
        lambda: tlkit.load(5),
        lambda: tlkit.load([None]),
        lambda: head.evaluate(["photos"]),
        lambda: head.evaluate(None),
        lambda: tlkit.check(None),
        lambda: tlkit.curve(5),
        lambda: tlkit.search(5),
        lambda: tlkit.find_lr(None),
        lambda: tlkit.compare(5),
        lambda: tlkit.suggest(run, None),
        lambda: tlkit.similar(None, tmp_path),
        lambda: tlkit.similar("a.jpg", None),
        lambda: tlkit.sort(run, None, into="sorted"),
        lambda: tlkit.sort(run, tmp_path, into=None),
        lambda: tlkit.unsort(None),
        lambda: tlkit.write_report(5),
        lambda: tlkit.score(None, "out"),
        lambda: tlkit.score("a.jpg", None),
        lambda: tlkit.features(None, "out"),
    ):
        with pytest.raises(tlkit.TlkitError, match="path"):
            call()
