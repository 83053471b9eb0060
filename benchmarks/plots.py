"""Plots: the pictures in docs/images, from the tables in benchmarks/README.md.

    python benchmarks/plots.py

No figure stands here: what a table says is parsed and drawn. The background is left out and all
lines are of a middle grey, so that one file serves light pages and dark ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
README = ROOT / "benchmarks" / "README.md"
IMAGES = ROOT / "docs" / "images"

GREY, OURS, OTHER = "#808890", "#0d9488", "#d97706"

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and to be searched
    "svg.hashsalt": "tlkit",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
}


def table(text: str, title: str) -> list[dict[str, str]]:
    """The first table behind **TITLE**: a row by its headers."""
    behind = text[text.index(f"**{title}**") :]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.search(r"(?:^\|.*\n)+", behind, re.MULTILINE)[0].splitlines()
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def fit_time(axes: Axes, rows: Sequence[Mapping[str, str]]) -> None:
    """A bar for each program that did the whole job, in seconds."""
    rows = [row for row in rows if "only" not in row[""]]
    names = [row[""] for row in rows]
    seconds = [float(row["seconds"].replace(",", "")) for row in rows]
    colours = [OURS if name.startswith("tlkit") else GREY for name in names]
    bars = axes.barh(names, seconds, color=colours, height=0.62)
    axes.bar_label(bars, [f"{row['seconds']} s" for row in rows], padding=5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(seconds))
    axes.set_xlabel("seconds of the whole process; less is better")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])


def learning(axes: Axes, rows: Sequence[Mapping[str, str]]) -> None:
    """A line for each set of photos: the median, and the range as a band."""
    for name, colour in zip(
        dict.fromkeys(row["photos"] for row in rows), (OURS, OTHER), strict=True
    ):
        mine = [row for row in rows if row["photos"] == name]
        sizes = [int(row["of each class"]) for row in mine]
        values = [[float(one) for one in re.findall(r"[\d.]+", row["accuracy"])] for row in mine]
        middle, low, high = zip(*values, strict=True)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(sizes, middle, color=colour, marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    ticks = sorted({int(row["of each class"]) for row in rows})
    axes.set_xticks(ticks, [str(one) for one in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=GREY, alpha=0.25)
    axes.set_xlabel("photos of each class to learn from")
    axes.set_ylabel("accuracy on test photos, %")
    axes.legend(loc="lower right")


PLOTS = {
    "fit-time": ("Fit", fit_time, (7.2, 2.1)),
    "learning": ("Learning", learning, (7.2, 3.4)),
}
"""Name of the picture -> title of its table, how it is drawn, inches."""


def figures(name: str) -> str:
    """The table behind a picture in one line, which the picture carries."""
    rows = table(README.read_text(), PLOTS[name][0])
    return "; ".join(" ".join(filter(None, row.values())) for row in rows)


def draw(name: str, folder: Path) -> Path:
    """Write a picture."""
    title, plot, size = PLOTS[name]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.subplots(), table(README.read_text(), title))
        path = folder / f"{name}.svg"
        told = {"Date": None, "Creator": None, "Description": figures(name)}
        figure.savefig(path, transparent=True, metadata=told)
    # matplotlib ends lines with blanks.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for one in PLOTS:
        path = draw(one, IMAGES)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")
