from __future__ import annotations

import dataclasses
import io
import itertools
import math
import subprocess
import sys
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tlkit.report import plots
from tlkit.report.plots import confusion, curves, rate_range
from tlkit.train.events import Epoch


def history(losses: list[float]) -> list[Epoch]:
    return [
        Epoch(
            number=place + 1,
            rate=10.0 ** (1 - place),
            train_loss=loss * 0.9,
            val_loss=loss,
            val_accuracy=0.5,
            val_balanced_accuracy=0.4,
            wall_s=1.0,
        )
        for place, loss in enumerate(losses)
    ]


def diagonal(count: int) -> np.ndarray:
    return np.eye(count, dtype=np.int64) * 30


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were turned into bytes."""
    figures: list[Figure] = []
    png = plots._png

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return png(figure)

    monkeypatch.setattr(plots, "_png", keep)
    return figures


def written(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def fonts_warn_of(name: str) -> bool:
    return not all(plots._drawable()(one) for one in name)


@pytest.mark.parametrize(
    "losses",
    [[], [1.0], [3.0, 1.0, 2.0], [math.nan], [math.inf, math.nan], [1.0, math.nan, 1e30]],
)
@pytest.mark.parametrize("penalty", [False, True])
def test_any_history_gives_a_readable_png_without_a_warning(losses, penalty):
    image = Image.open(io.BytesIO(curves(history(losses), penalty=penalty)))
    assert image.format == "PNG"
    assert image.width > image.height > 200


@pytest.mark.parametrize(
    "make", [lambda: curves(history([3.0, 1.0])), lambda: confusion(diagonal(3), list("abc"))]
)
def test_the_same_input_gives_the_same_bytes_and_no_date_or_version(make):
    assert make() == make()
    assert set(Image.open(io.BytesIO(make())).info) <= {"dpi"}


@pytest.mark.parametrize(
    ("losses", "best"), [([3.0, 1.0, 2.0], 2), ([math.nan, 2.0, 5.0], 3), ([1.0, 1.0], 1)]
)
def test_the_epoch_that_was_kept_is_marked_in_both_panels(drawn, losses, best):
    curves(history(losses), best=best - 1)
    (figure,) = drawn
    for axes in figure.axes:
        verticals = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert verticals
        assert all(line.get_xdata()[0] == best for line in verticals)
    assert any(f"epoch {best}" in text for text in written(figure))


def test_a_prior_is_drawn_as_part_of_the_loss_that_decides(drawn):
    rows = [
        dataclasses.replace(one, prior=prior)
        for one, prior in zip(history([1.0, 0.9]), (0.0, 0.5), strict=True)
    ]
    curves(rows, penalty=True, best=0)
    (line,) = [one for one in drawn[0].axes[0].lines if one.get_label() == "validation + prior"]
    assert list(line.get_ydata()) == [1.0, 1.4]


def test_where_nothing_is_said_to_be_kept_nothing_is_marked(drawn):
    curves(history([2.0, 1.0]))
    assert not any("marked" in text for text in written(drawn[0]))


def test_penalties_run_from_strong_to_weak_on_a_logarithmic_axis(drawn):
    curves(history([3.0, 1.0, 2.0]), penalty=True, best=1)
    for axes in drawn[0].axes:
        left, right = axes.get_xlim()
        assert left > 10.0 > 0.1 > right
        assert axes.get_xscale() == "log"
    assert any("penalty 1," in text for text in written(drawn[0]))


def test_no_accuracy_axis_has_a_tick_above_one(drawn):
    perfect = [
        Epoch(
            number=number,
            rate=1.0,
            train_loss=0.0,
            val_loss=0.0,
            val_accuracy=1.0,
            val_balanced_accuracy=1.0,
            wall_s=1.0,
        )
        for number in (1, 2)
    ]
    curves(perfect)
    right = drawn[0].axes[1]
    low, high = right.get_ylim()
    assert low < 1.0 <= high
    assert all(tick <= 1.0 + 1e-9 for tick in right.get_yticks() if low <= tick <= high)


def test_every_count_is_written_where_there_is_room(drawn):
    matrix = np.arange(9, dtype=np.int64).reshape(3, 3) + 100
    confusion(matrix, ["a", "b", "c"])
    axes: Axes = drawn[0].axes[0]
    at = {text.get_position(): text.get_text() for text in axes.texts}
    assert at == {(c, r): str(matrix[r, c]) for r in range(3) for c in range(3)}


def test_the_colour_is_the_share_of_the_row(drawn):
    matrix = np.array([[1, 3], [0, 0]], dtype=np.int64)
    confusion(matrix, ["a", "b"])
    shown = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert shown.tolist() == [[0.25, 0.75], [0.0, 0.0]]


@pytest.mark.parametrize("count", [1, 2, 20, 21, 102, 200, 450])
def test_any_number_of_classes_gives_a_picture_of_reasonable_size(drawn, count):
    names = [f"a_rather_long_class_name_{number}" for number in range(count)]
    image = Image.open(io.BytesIO(confusion(diagonal(count), names)))
    assert max(image.size) <= 3000
    axes = drawn[0].axes[0]
    assert bool(axes.texts) == (count <= 20)
    labels = axes.get_yticklabels()
    assert len(labels) == count if count <= 200 else len(labels) <= 200
    boxes = [one.get_window_extent() for one in labels]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    "name",
    [
        "$x^2$",
        "$\\frac{$",
        "costs $5 and $6",
        "猫の写真",
        "\U0001f408",
        "two\nlines\ttab",
        "\u202eevil",
        "\udcff",
        "_private",
        "",
        "x" * 5000,
        "कुत्ता",
        "כלב",
    ],
)
def test_any_class_name_is_drawn_as_it_is_or_as_squares_with_its_number(drawn, name):
    confusion(diagonal(2), ["plain", name])
    shown = drawn[0].axes[0].get_yticklabels()[1].get_text()
    assert len(shown) <= 30
    assert "\n" not in shown
    assert not fonts_warn_of(shown)
    if name.isascii() and name.isprintable() and len(name) < 20:
        assert shown == name
    if fonts_warn_of(name) and name.isprintable():
        assert shown.endswith("#1")


def test_the_dollar_of_a_name_is_no_formula():
    assert confusion(diagonal(2), ["$a$", "b"]) != confusion(diagonal(2), ["a", "b"])


def test_long_names_keep_both_ends(drawn):
    names = [f"husky_of_the_far_northern_islands_{number}" for number in range(3)]
    confusion(diagonal(3), names)
    shown = [one.get_text() for one in drawn[0].axes[0].get_yticklabels()]
    assert len(set(shown)) == 3


def test_the_users_settings_are_neither_obeyed_nor_changed():
    plain = curves(history([2.0, 1.0]))
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        assert curves(history([2.0, 1.0])) == plain
        assert dict(matplotlib.rcParams) == before


def test_importing_the_module_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; import tlkit.report.plots as p; assert 'matplotlib' not in sys.modules;"
        "p.curves([]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plots_drawn_at_once_are_those_drawn_alone():
    alone = curves(history([2.0, 1.0]))
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(curves(history([2.0, 1.0]))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [alone] * 3


@pytest.mark.parametrize(
    "losses", [[2.0], [2.0, 2.0, 2.0], [3.0, 2.0, 1.0, 900.0], [1e-9, 1e-9, 5e-9]]
)
@pytest.mark.parametrize("marked", [False, True])
def test_any_range_test_gives_a_readable_png_with_its_rates_in_words(losses, marked, drawn):
    rates = [10.0 ** (place - 4) for place in range(len(losses))]
    mark = rates[-1] if marked else None
    png = rate_range(rates, losses, losses, suggestion=mark, lowest=mark)
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.width > image.height > 200
    text = " ".join(written(drawn[0]))
    assert ("suggested" in text) == marked
    assert "$" not in text
