"""Vetting: whether installed plugins keep every law of the contract.

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlkit.errors import TlkitError
from tlkit.plugins import BACKBONES, choose
from tlkit.tables import TABLES
from tlkit.testing import CHECKS, check_row

LIMIT_S = 600.0
"""For all laws of one backbone or row."""


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
    if group in TABLES:
        return {"check_row": partial(check_row, TABLES[group][name])}
    backbone = choose(name).backbone
    return {law: partial(check, backbone) for law, check in CHECKS.items()}
