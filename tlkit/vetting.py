"""Vetting: whether installed plugins load, and keep every law of the contract.

In: a name of a backbone or of a row. Out: what it breaks, if anything. A stranger's code may raise,
hang, print or bring its process down: each is held against the laws (testing/) in a process of its
own, which tells what it is at, for so long as it is given.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlkit.errors import TlkitError
from tlkit.plugins import BACKBONES, OPTIONS, Broken, Found, choose, find, load, load_as

LIMIT_S = 600.0
"""For all laws of one backbone or row."""

IMPORT_S = 30.0
"""For the import of one plugin."""


@dataclass(frozen=True, kw_only=True)
class Vetted:
    """A backbone or row that was held against the laws."""

    law: str
    """The one that it breaks; empty where it keeps all."""
    fault: str
    """How; empty where it keeps all."""
    printed: str
    """What it printed while it was imported."""


PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tlkit.vetting import report; report(*sys.argv[2:])"
)


LISTING = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tlkit.vetting import report_loading; report_loading(*sys.argv[2:])"
)


def reasons_not_to_load(plugins: Sequence[Found], *, seconds: float = IMPORT_S) -> list[str]:
    """Import each plugin in another process; return for each why it does not load, or "".

    A plugin that ends the process, or does not return within `seconds`, is named for it; the
    others are imported in a new process.
    """
    reasons: list[str] = []
    while len(reasons) < len(plugins):
        rest = plugins[len(reasons) :]
        loaded, ending = _loaded_in_process(rest, seconds)
        reasons += loaded
        if len(loaded) < len(rest):
            reasons.append(ending)
    return reasons


def _loaded_in_process(plugins: Sequence[Found], seconds: float) -> tuple[list[str], str]:
    """The reasons that a process gave before it ended, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="tlkit-") as folder:
        answers = Path(folder) / "answers"
        answers.touch()
        wanted = json.dumps([[one.group, one.qualified, one.value] for one in plugins])
        with (Path(folder) / "errors").open("w+b") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", LISTING, json.dumps(sys.path), wanted, str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
            status = _wait(process, answers, seconds)
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        lines = answers.read_text(encoding="utf-8").splitlines()
    if status is None:
        return [json.loads(line) for line in lines], f"its import did not end in {seconds:g} s"
    ending = f"it ended the process with {status}" + (f": {last[:200]}" if last else "")
    return [json.loads(line) for line in lines], ending


def _wait(process: subprocess.Popen[bytes], answers: Path, seconds: float) -> int | None:
    """The status; None for a process that was stopped, as no answer was added for so long."""
    size = -1
    while True:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            if answers.stat().st_size == size:
                process.kill()
                process.wait()
                return None
            size = answers.stat().st_size


def report_loading(wanted: str, answers: str) -> None:
    """Import plugins one after the other, and write into a file why each does not load."""
    installed = {(one.group, one.qualified, one.value): one for one in find(tuple(OPTIONS))}
    with Path(answers).open("a", encoding="utf-8") as file:
        for key in json.loads(wanted):
            record = _loaded(installed[tuple(key)])
            reason = record.reason if isinstance(record, Broken) else ""
            file.write(json.dumps(reason) + "\n")
            file.flush()


def _loaded(found: Found) -> object:
    """The plugin's record, or why it has none."""
    if found.is_family or found.group == BACKBONES:
        return load(found)
    from tlkit.tables import TABLES  # which imports torch

    return load_as(found, TABLES[found.group].kind)


def vet(name: str, group: str = BACKBONES, *, seconds: float = LIMIT_S) -> Vetted:
    """Hold what an option takes by that name against every law: of a backbone, or of a row."""
    with tempfile.TemporaryDirectory(prefix="tlkit-") as place:
        told = Path(place) / "told"
        told.touch()
        how = ""
        try:
            ran = subprocess.run(
                [sys.executable, "-c", PROGRAM, json.dumps(sys.path), name, group, str(told)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
            if ran.returncode:
                last = (ran.stderr.strip().splitlines() or [""])[-1]
                how = f"its process ended with {ran.returncode}: {last[:200]}"
        except subprocess.TimeoutExpired:
            how = f"no end in {seconds:g} s"
        lines = [json.loads(one) for one in told.read_text(encoding="utf-8").splitlines()]
    begun = [one["law"] for one in lines if "law" in one]
    if not how and not any("done" in one or "fault" in one for one in lines):
        how = "its process ended before the law did"
    faults = [one["fault"] for one in lines if "fault" in one] + [how] * bool(how)
    return Vetted(
        law=begun[-1] if begun and faults else "",
        fault=faults[0] if faults else "",
        printed=next((one["printed"] for one in lines if "printed" in one), ""),
    )


def report(name: str, group: str, told: str) -> None:
    """Hold it against the laws in this process, and write into a file how it goes."""
    with Path(told).open("a", encoding="utf-8") as file:

        def tell(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        tell(law="import")
        heard = io.StringIO()
        try:
            with contextlib.redirect_stderr(heard):  # where printing is put aside to
                checks = _laws_of(name, group)
            tell(printed=heard.getvalue().strip()[:200])
            for law, check in checks.items():
                tell(law=law)
                check()
            tell(done=True)
        except TlkitError as error:
            tell(fault=f"{error.about}: {error.found}")
        except Exception as error:
            tell(fault=f"{type(error).__name__}: {error}")


def _laws_of(name: str, group: str) -> dict[str, Callable[[], None]]:
    """The laws by name, each with what they are about. Imports the plugin."""
    from tlkit.tables import TABLES
    from tlkit.testing import CHECKS, check_row

    if group in TABLES:
        return {"check_row": partial(check_row, TABLES[group][name])}
    backbone = choose(name).backbone
    return {law: partial(check, backbone) for law, check in CHECKS.items()}
