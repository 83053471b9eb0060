"""Plots: the pictures of a report, as PNG bytes.

In: the epochs of a fit; a confusion matrix; bins of a reliability diagram; scores of test-time
policies, or of heads that are compared; the losses of a range test. Out: bytes of a PNG, the same
for the same input.
Drawn with matplotlib's objects and never with pyplot, which keeps figures and opens windows. The
user's own matplotlib settings are set aside: they could typeset class names as TeX.
Next door: svg.py (the charts of a page).
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import printable
from tlkit.metrics import Bin, Evaluation
from tlkit.train.events import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#33383d", "#7c858e", "#e6e9ec"
FIRST, SECOND, MARK = "#1f5f99", "#c2cbd4", "#c8553d"
DPI = 120

MOST_WRITTEN = 20
"""Classes up to which every count is written into its cell."""
MOST_NAMED = 200
"""Classes up to which every name is written at the side."""

# Tried in this order where installed: DejaVu comes with matplotlib and has no Chinese, Japanese or
# Korean.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
)


def curves(history: Sequence[Epoch], *, penalty: bool = False, best: int | None = None) -> bytes:
    """PNG of losses and accuracies over the epochs; `best` is the place of the one to mark.

    With `penalty` the horizontal axis is each record's penalty, from strong to weak.
    """
    with _settings():
        figure = _figure(9.0, 3.7)
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2)
        at = [one.rate if penalty else float(one.number) for one in history]
        losses = [
            ("training", [one.train_loss for one in history], SECOND),
            ("validation", [one.val_loss for one in history], FIRST),
        ]
        if any(one.prior is not None for one in history):
            losses.append(("validation + prior", [one.selection_loss for one in history], FAINT))
        _panel(
            left,
            "Loss",
            at,
            losses,
            best,
        )
        _panel(
            right,
            "Validation accuracy",
            at,
            [
                ("balanced", [one.val_balanced_accuracy for one in history], SECOND),
                ("accuracy", [one.val_accuracy for one in history], FIRST),
            ],
            best,
        )
        _percent(right)
        for axes in (left, right):
            _horizontal(axes, at, penalty=penalty)
        if best is not None:
            where = f"penalty {at[best]:.2g}" if penalty else f"epoch {history[best].number}"
            figure.supxlabel(f"marked: {where}, which was kept", fontsize=8, color=MARK)
        return _png(figure)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """PNG of a confusion matrix (C, C), true classes in rows, predicted ones in columns.

    The colour is the share of the row, so that rare classes are seen as well as frequent ones.
    """
    count = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    with _settings():
        from matplotlib.colors import PowerNorm

        # Small shares get more of the scale: what is confused is what one looks for.
        shades = PowerNorm(0.6, vmin=0.0, vmax=1.0)
        cell, size = _cell(count)
        side = max(cell * count, 1.8)
        # The axes fill the figure, and `_png` adds what the names need: cells keep their size.
        figure = _figure(side, side)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_facecolor(GRID)
        image = axes.imshow(share, cmap="Blues", norm=shades, interpolation="nearest")
        _sides(axes, _names(classes), size)
        if count <= MOST_WRITTEN:
            _write_counts(axes, matrix, share, cell)
        scale = axes.inset_axes((1.0 + 0.15 / side, 0.0, 0.12 / side, 1.0))
        bar = figure.colorbar(image, cax=scale, ticks=[0.0, 0.1, 0.5, 1.0], format=_share_text)
        bar.set_label("share of the true class", fontsize=8, color=FAINT)
        bar.outline.set_visible(False)
        scale.tick_params(labelsize=7, length=0, labelcolor=FAINT)
        return _png(figure)


def reliability(after: Sequence[Bin], before: Sequence[Bin] | None) -> bytes:
    """PNG of a reliability diagram, a dot's area being its share of the images.

    `before` are the bins without a temperature, where they are known.
    """
    lines = [("without the temperature", before, SECOND)] if before is not None else []
    lines.append(("as it answers", after, FIRST))
    with _settings():
        figure = _figure(4.6, 4.6)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        for name, bins, colour in lines:
            total = sum(one.images for one in bins)
            sure, right = [one.sure for one in bins], [one.right for one in bins]
            axes.plot(sure, right, color=colour, linewidth=1.6, label=name)
            areas = [12 + 180 * one.images / total for one in bins]
            axes.scatter(sure, right, s=areas, color=colour, zorder=3)
        _frame(axes, "Reliability")
        axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK, reverse=True)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xlabel("how sure it is", fontsize=8, color=INK)
        axes.set_ylabel("how often it is right", fontsize=8, color=INK)
        return _png(figure)


def policies(named: Mapping[str, Evaluation]) -> bytes:
    """PNG of accuracies with their 95 % intervals, one for each test-time policy."""
    with _settings():
        figure = _figure(1.8 + 1.0 * len(named), 3.4)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for place, one in enumerate(named.values()):
            low, high = one.accuracy_low, one.accuracy_high
            axes.plot([place, place], [low, high], color=SECOND, linewidth=3.4)
            axes.plot(place, one.accuracy, color=FIRST, marker="o", markersize=6)
        _frame(axes, "Accuracy")
        axes.set_xticks(range(len(named)), list(named))
        axes.set_xlim(-0.6, len(named) - 0.4)
        _percent(axes)
        return _png(figure)


Estimate = tuple[float, float, float]
"""A number and the two ends of its interval."""


def comparison(
    accuracies: Mapping[str, Estimate], differences: Mapping[tuple[str, str], Estimate]
) -> bytes:
    """PNG of accuracies with their 95 % intervals, and of the differences of pairs with theirs."""
    with _settings():
        figure = _figure(8.6, 1.3 + 0.34 * max(len(accuracies), len(differences)))
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2)
        _intervals(left, "Accuracy, %", _names(list(accuracies)), list(accuracies.values()))
        pairs = [" \N{MINUS SIGN} ".join(_names(one)) for one in differences]
        _intervals(right, "Difference, points", pairs, list(differences.values()))
        right.axvline(0.0, color=MARK, linewidth=0.9, linestyle=(0, (4, 3)))
        return _png(figure)


def _intervals(axes: Axes, title: str, names: Sequence[str], found: Sequence[Estimate]) -> None:
    """A row for each, the first on top, in hundredths."""
    for place, (middle, low, high) in enumerate(found):
        axes.plot([100 * low, 100 * high], [place, place], color=SECOND, linewidth=3.4)
        axes.plot(100 * middle, place, color=FIRST, marker="o", markersize=6)
    _frame(axes, title)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def rate_range(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    suggestion: float | None,
    lowest: float | None,
) -> bytes:
    """PNG of the losses of a range test over its learning rates, which are growing.

    Marked are the suggested rate and the lowest smoothed loss.
    """
    with _settings():
        figure = _figure(6.4, 3.9)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        _lines(axes, "Loss", rates, [("raw", losses, SECOND), ("smoothed", smoothed, FIRST)], "")
        _logarithmic(axes, rates)
        axes.set_xlabel("learning rate of the head", fontsize=8, color=INK)
        # The losses of rates that break everything would press all others into a line.
        low, place = min(smoothed), smoothed.index(min(smoothed))
        top = max(smoothed[: place + 1])
        high = min(max(smoothed), top + max(top - low, 0.1 * abs(low)))
        axes.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.1 * (high - low) + 1e-6)
        told = []
        if lowest is not None:
            axes.plot(
                lowest,
                smoothed[rates.index(lowest)],
                color=MARK,
                marker="o",
                markersize=6,
                zorder=4,
            )
            told.append(f"dot: the lowest loss, at {lowest:.2g}")
        if suggestion is not None:
            axes.axvline(suggestion, color=MARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            told.insert(0, f"dashed: {suggestion:.2g}, which is suggested")
        figure.supxlabel("; ".join(told), fontsize=8, color=MARK)
        return _png(figure)


def front(
    names: Sequence[str],
    speeds: Sequence[float],
    accuracies: Sequence[tuple[float, float, float]],
    *,
    ahead: Sequence[str],
    pick: str,
) -> bytes:
    """PNG of accuracies with their intervals (value, low, high) over images per second.

    A line joins those `ahead`: no other is as accurate and faster. `pick` is marked.
    """
    with _settings():
        figure = _figure(6.4, 4.2)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        at = dict(zip(names, zip(speeds, accuracies, strict=True), strict=True))
        line = sorted((at[name][0], at[name][1][0]) for name in ahead)
        axes.plot([x for x, _ in line], [y for _, y in line], color=SECOND, linewidth=3.4, zorder=1)
        for name, short in zip(names, _names(names), strict=True):
            speed, (value, low, high) = at[name]
            colour = MARK if name == pick else FIRST if name in ahead else FAINT
            axes.plot([speed, speed], [low, high], color=colour, linewidth=1.2, zorder=2)
            axes.plot(speed, value, color=colour, marker="o", markersize=6, zorder=3)
            axes.annotate(
                short, (speed, value), xytext=(6, 4), textcoords="offset points", fontsize=7.5,
                color=INK,
            )  # fmt: skip
        _frame(axes, "Accuracy, cross-validated, with 95 % intervals")
        _logarithmic(axes, speeds)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * 1.5)  # room for the last name
        _percent(axes)
        axes.set_xlabel("images per second of the network", fontsize=8, color=INK)
        return _png(figure)


def learning_curve(
    photos: Sequence[float],
    accuracies: Sequence[Sequence[float]],
    at: Sequence[float],
    band: Sequence[tuple[float, float, float]],
    *,
    measured: float,
    total: int,
) -> bytes:
    """PNG of each draw's accuracy at numbers of photos, and of what is expected at others.

    `band` has low, middle and high at the growing numbers `at`; above `measured` it is foretold.
    `total` is how many photos there are.
    """
    with _settings():
        figure = _figure(6.4, 3.9)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        low, middle, high = (list(one) for one in zip(*band, strict=True))
        axes.fill_between(at, low, high, color=SECOND, alpha=0.45, linewidth=0, zorder=1)
        seen = sum(one <= measured for one in at)
        axes.plot(at[:seen], middle[:seen], color=FIRST, linewidth=1.6, zorder=2)
        axes.plot(
            at[max(0, seen - 1) :],
            middle[max(0, seen - 1) :],
            color=FIRST,
            linewidth=1.6,
            linestyle=(0, (4, 3)),
            zorder=2,
        )
        for place, draws in zip(photos, accuracies, strict=True):
            axes.plot(
                [place] * len(draws), draws, color=FAINT, marker="o", markersize=2.5, linestyle="",
                alpha=0.6, zorder=3,
            )  # fmt: skip
            axes.plot(
                place, sum(draws) / len(draws), color=FIRST, marker="o", markersize=5, zorder=4
            )
        axes.axvline(total, color=MARK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        _frame(axes, "Accuracy on photos not learnt from")
        _percent(axes)
        axes.set_xscale("log")
        ticks = _round_numbers(at[0], at[-1])
        axes.set_xticks(ticks, [f"{one:,}" for one in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("photos learnt from", fontsize=8, color=INK)
        figure.supxlabel(
            f"dots: draws and their mean; dashed: foretold; dotted: the {total:,} photos there are",
            fontsize=8,
            color=MARK,
        )
        return _png(figure)


def _panel(
    axes: Axes,
    title: str,
    at: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float], str]],
    best: int | None,
) -> None:
    """Lines of one panel; the last of them is the one that the best epoch is marked on."""
    if best is not None:
        axes.axvline(at[best], color=MARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    _lines(axes, title, at, lines, "o" if len(at) <= 30 else "")
    if best is not None:
        top = lines[-1][1][best]
        axes.plot(at[best], top, color=MARK, marker="o", markersize=6, zorder=4, clip_on=False)


def _lines(
    axes: Axes,
    title: str,
    at: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float], str]],
    dot: str,
) -> None:
    """Lines under their title, with their names."""
    # The first is broad and pale: it is seen under the other where the two are equal.
    for (name, values, colour), width in zip(lines, (3.4, 1.6, 1.6), strict=False):
        axes.plot(
            at, values, color=colour, label=name, linewidth=width, marker=dot, markersize=width + 2
        )
    _frame(axes, title)
    # Above the panel, where no line can run under it.
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        reverse=True,
        borderaxespad=0.3,
        columnspacing=1.2,
        handlelength=1.4,
    )
    if not any(math.isfinite(one) for _, values, _ in lines for one in values):
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "no numbers", transform=axes.transAxes, ha="center", fontsize=9, color=FAINT
        )


def _frame(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT, left=False)


def _horizontal(axes: Axes, at: Sequence[float], *, penalty: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("penalty, from strong to weak" if penalty else "epoch", fontsize=8, color=INK)
    if not at:
        axes.set_xticks([])
    elif penalty:
        _logarithmic(axes, at)
        axes.invert_xaxis()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        space = max(0.5, 0.03 * (max(at) - min(at)))
        axes.set_xlim(min(at) - space, max(at) + space)


def _logarithmic(axes: Axes, at: Sequence[float]) -> None:
    low, high = min(at), max(at)
    powers = [10.0**one for one in range(-12, 13) if low <= 10.0**one <= high]
    ticks = powers if len(powers) > 1 else sorted({low, high})
    axes.set_xscale("log")
    # Written out: matplotlib's own labels of a logarithmic axis are TeX.
    axes.set_xticks(ticks, [f"{one:.2g}" for one in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low / 1.3, high * 1.3)


def _round_numbers(low: float, high: float) -> list[int]:
    """1, 2 or 5 times a power of ten between two numbers; only powers where those are many."""
    found = [
        step * 10**power
        for power in range(12)
        for step in (1, 2, 5)
        if low <= step * 10**power <= high
    ]
    powers = [one for one in found if str(one).strip("0") == "1"]
    return powers if len(found) > 8 and len(powers) > 1 else found or [round(low), round(high)]


def _percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.0 + 0.05 * (1.0 - low)))  # no tick above 100 %


def _cell(count: int) -> tuple[float, float]:
    """Side of a cell in inches and size of the names in points, for so many classes."""
    if count <= MOST_WRITTEN:
        return 0.42, 8.0
    if count <= 60:
        return 0.18, 7.0
    return (0.1 if count <= MOST_NAMED else 20.0 / count), 5.5


def _sides(axes: Axes, names: Sequence[str], size: float) -> None:
    step = math.ceil(len(names) / MOST_NAMED)
    places = range(0, len(names), step)
    shown = names[::step]
    slanted = len(names) <= MOST_WRITTEN
    level = slanted and all(len(one) <= 4 for one in names)
    axes.set_xticks(places, shown, fontsize=size, color=INK)
    axes.set_yticks(places, shown, fontsize=size, color=INK)
    for label in axes.get_xticklabels():
        if not level:
            label.set(
                rotation=45 if slanted else 90,
                horizontalalignment="right" if slanted else "center",
                rotation_mode="anchor" if slanted else "default",
            )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", fontsize=9, color=FAINT)
    axes.set_ylabel("true", fontsize=9, color=FAINT)
    if len(names) <= 60:
        # White lines between the cells, which a larger matrix has no room for.
        edges = np.arange(len(names) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.0)
        axes.tick_params(which="minor", length=0)


def _write_counts(
    axes: Axes, matrix: NDArray[np.int64], share: NDArray[np.float64], cell: float
) -> None:
    digits = len(str(matrix.max(initial=0)))
    size = min(8.5, 0.85 * cell * 72 / (0.64 * digits))
    for row, column in np.ndindex(*matrix.shape):
        pale = matrix[row, column] == 0
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share[row, column] > 0.4 else "#b4bac0" if pale else INK,
        )


def _share_text(value: float, _: object) -> str:
    return f"{value:.0%}"


def _names(classes: Sequence[str]) -> list[str]:
    """Class names that can be drawn: short, on one line, of letters that a font has.

    One that loses letters gets the number of its class, so that it can be told from others.
    """
    longest = 24 if len(classes) <= MOST_WRITTEN else 18
    has = _drawable()
    names = []
    for number, name in enumerate(classes):
        plain = printable(name).replace("\n", "\\n")
        drawn = "".join(one if has(one) else "\N{WHITE SQUARE}" for one in plain)
        if len(drawn) > longest:
            # Names of one data set differ at either end: husky_siberian, mix_01, mix_02.
            head = (longest - 1) * 2 // 3
            drawn = f"{drawn[:head]}\N{HORIZONTAL ELLIPSIS}{drawn[head + 1 - longest :]}"
        names.append(drawn if "\N{WHITE SQUARE}" not in drawn else f"{drawn} #{number}")
    return names


def _drawable() -> Callable[[str], bool]:
    """Whether one of the fonts in use has a character."""
    from matplotlib import font_manager

    faces = [
        font_manager.get_font(font_manager.findfont(name)).get_charmap() for name in _installed()
    ]
    return lambda one: any(ord(one) in face for face in faces)


def _installed() -> list[str]:
    from matplotlib import font_manager

    present = {face.name for face in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in present]


# matplotlib's settings belong to the process, and a server draws in several threads.
_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib's own defaults, with `$` and `_` in names taken as they are."""
    import matplotlib

    with _ONE_AT_A_TIME, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "font.family": _installed()})
        yield


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # matplotlib would write its own version into the file.
    figure.savefig(
        file, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.12
    )
    return file.getvalue()
