"""Measuring: programs one after another, each in a process of its own, and what they took."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tlkit.tables import markdown

HERE = Path(__file__).parent
SAMPLE_S = 0.2


@dataclass(frozen=True)
class Cost:
    """What a whole process took, from its start to its end."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Most memory of the process and its children together, shared pages counted once (PSS)."""
    said: Mapping[str, float]
    """The JSON in its last line."""


def run(words: Sequence[str | Path]) -> Cost:
    """Run a program to its end. Ends this one where it fails."""
    peak = [0.0]
    started = time.perf_counter()
    process = subprocess.Popen([str(one) for one in words], stdout=subprocess.PIPE, text=True)
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, done, peak), daemon=True)
    watcher.start()
    before = os.times()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - started
    after = os.times()
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with status {process.returncode}")
    last = output.strip().splitlines()[-1:] or ["{}"]
    said = json.loads(last[0]) if last[0].startswith("{") else {}
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    return Cost(wall_s=wall_s, cpu_s=cpu_s, peak_mb=peak[0] / 1e6, said=said)


def watch(pid: int, done: threading.Event, peak: list[float]) -> None:
    """Note the most memory that a process and its children have had, until it is done."""
    while not done.wait(SAMPLE_S):
        total = 0
        try:
            root = psutil.Process(pid)
            members = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for one in members:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        peak[0] = max(peak[0], total)


def contestant(name: str, *words: str | Path) -> list[str | Path]:
    """The command of a program in contestants/."""
    return [sys.executable, HERE / "contestants" / f"{name}.py", *words]


def there(module: str) -> bool:
    """Whether a peer is installed; says so if not."""
    if find_spec(module) is None:
        print(f"({module} is not installed: pip install -r benchmarks/requirements.txt)")
        return False
    return True


def medians(costs: Sequence[Cost]) -> Cost:
    """Of several runs of one program, number by number."""
    said = {
        key: statistics.median(one.said[key] for one in costs if key in one.said)
        for key in costs[0].said
    }
    return Cost(
        wall_s=statistics.median(one.wall_s for one in costs),
        cpu_s=statistics.median(one.cpu_s for one in costs),
        peak_mb=statistics.median(one.peak_mb for one in costs),
        said=said,
    )


def in_turn(programs: Mapping[str, Sequence[str | Path]], repeat: int) -> dict[str, list[Cost]]:
    """Every program `repeat` times, in turn: what disturbs the machine disturbs them alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for number in range(repeat):
        for name, words in programs.items():
            costs[name].append(run(words))
            took = costs[name][-1]
            print(f"run {number + 1}: {name}: {took.wall_s:.1f} s", file=sys.stderr)
    return costs


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(markdown(header, rows))


def costs_table(
    costs: Mapping[str, Sequence[Cost]],
    *,
    of: str,
    score: str = "accuracy",
    form: str = "{:.1%}",
) -> None:
    """The medians side by side; the ratio is to the program `of`."""
    middle = {name: medians(runs) for name, runs in costs.items()}
    rows = []
    for name, one in middle.items():
        walls = [each.wall_s for each in costs[name]]
        reached = one.said.get(score)
        rows.append(
            [
                name,
                f"{one.wall_s:.1f} ({min(walls):.1f} to {max(walls):.1f})",
                f"{one.wall_s / middle[of].wall_s:.1f}",
                f"{one.cpu_s:.0f}",
                f"{one.peak_mb:,.0f}",
                "" if reached is None else form.format(reached),
            ]
        )
    table(["", "seconds", f"times {of}", "CPU seconds", "peak MB", score], rows)
