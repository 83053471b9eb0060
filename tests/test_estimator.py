"""The estimator: what scikit-learn's tools ask of a classifier, and the same answers as tlkit's."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

import tlkit
from tlkit import ImageClassifier
from tlkit.data.folder import scan
from tlkit.data.images import read
from tlkit.errors import (
    DataError,
    ImageError,
    OptionError,
    OptionWithoutEffect,
    OptionWithoutEffectWarning,
    UnknownName,
)
from tlkit.train.bank import Extractor


@pytest.fixture(scope="module")
def data(colours):
    """24 paths, and the name of the colour of each."""
    catalog = scan(colours)
    return [str(one) for one in catalog.paths], np.array(catalog.classes)[catalog.labels]


@pytest.fixture(scope="module")
def fitted(data):
    return ImageClassifier(backbone="tiny").fit(*data)


@pytest.fixture
def computed(monkeypatch):
    """How many images went through the frozen part, each time that some were asked for."""
    counts = []
    real = Extractor._compute_rows

    def spy(self, run, missing, seen):
        counts.append(len(missing))
        return real(self, run, missing, seen)

    monkeypatch.setattr(Extractor, "_compute_rows", spy)
    return counts


def test_it_learns_and_answers_in_the_words_of_y(fitted, data):
    paths, colours = data
    assert list(fitted.classes_) == ["blue", "green", "red"]
    assert fitted.score(paths, colours) > 0.9
    rows = fitted.predict_proba(paths)
    assert rows.shape == (24, 3)
    assert np.allclose(rows.sum(axis=1), 1)
    assert (fitted.classes_[rows.argmax(axis=1)] == fitted.predict(paths)).all()


@pytest.mark.parametrize("kind", [int, np.float64, bool, object])
def test_labels_of_any_kind_come_back_as_they_were(data, kind):
    paths, colours = data
    y = (colours == "red").astype(kind) if kind is not object else colours.astype(object)
    found = ImageClassifier(backbone="tiny").fit(paths, y).predict(paths)
    assert found.dtype == y.dtype
    assert (found == y).mean() > 0.9


def test_the_answers_are_those_of_its_head_file(fitted, data, tmp_path):
    fitted.save(tmp_path / "head.safetensors")
    head = tlkit.load(tmp_path / "head.safetensors")
    wanted = np.stack([one.probabilities for one in head.predict(data[0])])
    # What is stored of an image is in half precision.
    assert np.allclose(fitted.predict_proba(data[0]), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("freeze", ["features", "none", "to:stage1"])
def test_a_pickle_answers_bit_for_bit_and_holds_no_backbone(data, freeze):
    one = ImageClassifier(backbone="tiny", freeze=freeze, epochs=1).fit(*data)
    data_of = pickle.dumps(one)
    again = pickle.loads(data_of)
    assert np.array_equal(again.predict_proba(data[0]), one.predict_proba(data[0]))
    assert np.array_equal(again.transform(data[0]), one.transform(data[0]))
    assert len(data_of) < len(one._file) + 30_000


def test_arrays_give_what_their_files_give(fitted, data):
    paths, colours = data
    arrays = np.stack([read(Path(path), at_least_px=0) for path in paths])
    assert np.array_equal(fitted.predict_proba(arrays), fitted.predict_proba(paths))
    assert np.array_equal(fitted.predict_proba(list(arrays)), fitted.predict_proba(paths))
    assert ImageClassifier(backbone="tiny").fit(arrays, colours).score(arrays, colours) > 0.9


def test_grey_images_of_any_size_and_one_channel_are_images(fitted):
    grey = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    one, other = fitted.predict_proba([grey, grey[:, :, None]])
    assert np.array_equal(one, other)
    assert fitted.predict([grey[:20], grey[:, :7]]).shape == (2,)


def test_features_are_what_the_head_sees(fitted, data):
    features = fitted.transform(data[0])
    assert features.shape == (24, 16)
    names = fitted.get_feature_names_out()
    assert (len(names), names[0]) == (16, "imageclassifier0")
    table = clone(fitted).set_output(transform="pandas").fit(*data).transform(data[0])
    assert list(table.columns) == list(names)


def test_a_grid_over_heads_computes_every_image_once(data, computed):
    paths, colours = data
    grid = {
        "head": ["linear", "mlp"],
        "label_smoothing": [0.0, 0.1],
        "balance": ["none", "classes"],
    }
    search = GridSearchCV(
        ImageClassifier(backbone="tiny", epochs=2, augment="none"), grid, cv=3, error_score="raise"
    )
    search.fit(paths, colours)
    assert len(search.cv_results_["params"]) == 8
    assert sum(computed) == 24
    assert search.best_score_ > 0.8


def test_folds_of_scikit_learn_share_the_features(data, computed):
    scores = cross_val_score(ImageClassifier(backbone="tiny"), *data, cv=4)
    assert len(scores) == 4
    assert scores.mean() > 0.9
    assert sum(computed) == 24


def test_it_stands_at_both_ends_of_a_pipeline(data):
    from sklearn.linear_model import LogisticRegression

    paths, colours = data
    first = make_pipeline(ImageClassifier(backbone="tiny"), LogisticRegression())
    assert first.fit(paths, colours).score(paths, colours) > 0.9
    to_paths = FunctionTransformer(lambda names: [one.removeprefix("x") for one in names])
    last = Pipeline([("paths", to_paths), ("images", ImageClassifier(backbone="tiny"))])
    named = ["x" + one for one in paths]
    assert last.fit(named, colours).score(named, colours) > 0.9


def test_a_clone_has_the_parameters_and_nothing_learnt(fitted):
    other = clone(fitted.set_params(epochs=7))
    assert other.get_params() == fitted.get_params()
    assert other.epochs == 7
    fitted.set_params(epochs=10)
    with pytest.raises(NotFittedError):
        other.predict(["a.png"])
    assert repr(ImageClassifier(head="mlp")) == "ImageClassifier(head='mlp')"


def test_what_was_mistyped_is_named():
    with pytest.raises(UnknownName, match="backbne"):
        ImageClassifier(backbne="tiny")
    with pytest.raises(OptionError, match="--epochs -3"):
        ImageClassifier(backbone="tiny", epochs=-3).fit(["a", "b"], [0, 1])


@pytest.mark.parametrize(
    ("X", "y", "found"),
    [
        ("photo.jpg", [0], "a str as X"),
        (3, [0], "a int as X"),
        ([], [], "without an image"),
        ([np.zeros((4, 4, 3))] * 4, [0, 0, 1, 1], "image 0 of X: a ndarray, float64"),
        ([np.zeros((4, 4, 2), np.uint8)] * 4, [0, 0, 1, 1], r"shape \(4, 4, 2\)"),
        ([[1, 2]] * 4, [0, 0, 1, 1], "image 0 of X: a list"),
        (np.array([["a", "b"]] * 4), [0, 0, 1, 1], r"shape \(4, 2\)"),
        (["a", "b"], [0, 1, 1], "2 images and 3 labels"),
        (["a", "b"], [1, 1], "one class: 1"),
        (["a", "b", "c"], [1, 1, 0], "one image of 0"),
        (["a", "b"], None, "target y is None"),
    ],
)
def test_what_is_no_set_of_labelled_images_is_refused(X, y, found):
    with pytest.raises(ValueError, match=found):
        ImageClassifier(backbone="tiny").fit(X, y)


def test_a_path_that_is_no_image_is_named(fitted, tmp_path):
    (tmp_path / "a.png").write_text("none")
    with pytest.raises(ImageError, match=r"a\.png"):
        fitted.predict([tmp_path / "a.png"])
    assert issubclass(DataError, ValueError)


def test_a_column_of_a_table_is_a_list_of_paths(fitted, data):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"photo": data[0]})
    wanted = fitted.predict_proba(data[0])
    assert np.array_equal(fitted.predict_proba(table), wanted)
    assert np.array_equal(fitted.predict_proba(table["photo"]), wanted)


# --- scikit-learn's own checks, which know only tables of numbers ---

NOT_KEPT = {
    "check_methods_subset_invariance": "the sums of a network are rounded differently in a batch "
    "of another size: probabilities differ in the seventh digit",
}


class OfRows(ImageClassifier):
    """Takes tables: the numbers of a row become the grey of a picture's columns."""

    def fit(self, X, y):
        return super().fit(X if y is None else self._pictures(X, reset=True), y)

    def _run(self, X, *, up_to):
        check_is_fitted(self)
        return super()._run(self._pictures(X, reset=False), up_to=up_to)

    def _pictures(self, X, *, reset):
        rows = validate_data(self, X, reset=reset)
        grey = (255 / (1 + np.exp(-np.clip(rows, -50, 50)))).astype(np.uint8)
        return [np.tile(row, (len(row), 1)) for row in grey]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = tags.input_tags.string = False
        return tags


@pytest.mark.filterwarnings("ignore")  # of checks that cannot be made here
def test_scikit_learns_own_checks_are_passed():
    found = check_estimator(
        OfRows(backbone="tiny", epochs=2), expected_failed_checks=NOT_KEPT, on_skip=None
    )
    passed = {one["check_name"] for one in found if one["status"] == "passed"}
    assert len(passed) > 40
    others = {one["check_name"] for one in found if one["status"] not in ("passed", "skipped")}
    assert others <= set(NOT_KEPT)


def test_an_option_without_effect_is_a_warning_that_names_it_and_changes_nothing(data, fitted):
    with pytest.warns(OptionWithoutEffectWarning) as caught:
        warned = ImageClassifier(backbone="tiny", dropout=0.5, lr=0.1).fit(*data)
    said = " ".join(str(one.message) for one in caught)
    assert "--dropout 0.5" in said
    assert "--lr 0.1" in said
    assert np.array_equal(warned.predict_proba(data[0]), fitted.predict_proba(data[0]))
    assert "dropout" not in warned.card_.options or warned.card_.options["dropout"] != 0.5


def test_an_option_without_effect_is_an_error_outside_of_the_estimator(colours):
    with pytest.raises(OptionWithoutEffect, match="--dropout"):
        tlkit.fit(colours, backbone="tiny", dropout=0.5)


def test_a_search_over_options_that_some_heads_lack_fits_every_combination(data):
    images = ImageClassifier(backbone="tiny", epochs=2)
    grid = {"head": ["linear", "mlp"], "dropout": [0.0, 0.3]}
    with pytest.warns(OptionWithoutEffectWarning, match="--dropout"):
        search = GridSearchCV(images, grid, cv=2, error_score="raise").fit(*data)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_whole_weight_counts_as_the_image_given_so_often(data):
    paths, labels = np.array(data[0]), data[1]
    weights = np.random.default_rng(3).integers(0, 4, len(paths))
    weights[:2], weights[8:10], weights[16:18] = 1, 2, 3
    images = ImageClassifier(backbone="tiny")
    weighted = clone(images).fit(paths, labels, sample_weight=weights)
    given = clone(images).fit(np.repeat(paths, weights), np.repeat(labels, weights))
    assert np.array_equal(weighted.predict_proba(paths), given.predict_proba(paths))
    assert weighted.card_.images == given.card_.images


def test_a_weight_of_0_leaves_an_image_and_a_class_out(data):
    paths, labels = np.array(data[0]), data[1]
    weights = (labels != "red").astype(float)
    images = ImageClassifier(backbone="tiny").fit(paths, labels, sample_weight=weights)
    assert list(images.classes_) == ["blue", "green"]


@pytest.mark.parametrize("weight", [1, 0.25, 7])
def test_weights_that_are_all_alike_change_nothing(data, fitted, weight):
    same = ImageClassifier(backbone="tiny").fit(*data, sample_weight=[weight] * len(data[0]))
    assert np.array_equal(same.predict_proba(data[0]), fitted.predict_proba(data[0]))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0] * 3, "shape"),
        ([[1.0]] * 24, "shape"),
        ([0.5, 1] * 12, "whole numbers"),
        ([1, 10**6] * 12, "whole numbers"),
        ([-1, 1] * 12, "negative"),
        ([float("nan"), 1] * 12, "negative"),
        ([0] * 24, "all 0"),
        (["a"] * 24, "no numbers"),
    ],
)
def test_weights_that_cannot_be_kept_exactly_are_refused_in_words(data, weights, words):
    with pytest.raises(DataError, match=words):
        ImageClassifier(backbone="tiny").fit(*data, sample_weight=weights)
