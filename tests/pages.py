"""Pages: the snippets of the README or of docs/, and running them in order as a reader would.

A comment before a fence says what is different about it:
    <!-- not run: WHY -->             it cannot run in tests
    <!-- tests add: WORDS -->         to each command of tlkit in it, to make it small
    <!-- exit status: N -->           how its last command ends, if not with 0
    <!-- stands in: FILE -->          it is a part of a file that is there
A fence with a title is a file of that name. A `text` fence after a `sh` fence is what that printed:
numbers may differ, and `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import site
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from tlkit.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<words>[^\n]*) -->\n)?"
    r'```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
MARKS = ("not run", "tests add", "exit status", "stands in")
NUMBER = re.compile(r"\d[\d,.]*")
PER_CLASS = {"train": 6, "test": 2}
"""Images of a sample that the tests keep."""


@dataclass(frozen=True)
class Snippet:
    """A fence."""

    language: str
    title: str
    text: str
    mark: str
    words: str
    line: int


def snippets(page: Path) -> list[Snippet]:
    """The fences of a page, in order."""
    source = page.read_text()
    found = []
    for one in FENCE.finditer(source):
        named = {name: text or "" for name, text in one.groupdict().items()}
        found.append(Snippet(**named, line=source.count("\n", 0, one.start()) + 1))
    return found


def shape(text: str) -> str:
    """What stays the same from machine to machine: numbers and the widths of columns do not."""
    return " ".join(re.sub("─+", "─", NUMBER.sub("0", text)).split())


def alike(shown: str, printed: str) -> bool:
    """Whether a page may show that for what was printed."""
    parts = [re.escape(shape(part)) for part in shown.split("...")]
    return re.fullmatch(".*".join(parts), shape(printed)) is not None


@dataclass
class Reader:
    """Somebody who does what a page says, in the current folder."""

    home: Path
    site_packages: Path
    """Where what they install goes."""
    names: dict[str, Any] = field(default_factory=dict)
    """What their Python knows."""
    printed: str | None = None
    transcript: str = ""
    """All that was printed."""

    @classmethod
    def at(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
        """Prepare a reader whose folder is searched for modules, and whose few images are many."""
        # What a page shows of 1347 images is run on 60.
        monkeypatch.setattr("tlkit.train.run.FEW", 30)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        return cls(home=folder, site_packages=folder.parent / f"{folder.name}-site")

    def follow(self, page: Path) -> int:
        """Do all that the page says; how many snippets were run."""
        count = 0
        for one in snippets(page):
            where = f"{page.name}:{one.line}"
            if one.mark == "not run":
                self.printed = None
            elif one.mark == "stands in":
                assert one.text in Path(one.words).read_text(), where
            elif one.title:
                self.write(one)
            elif one.language == "text":
                assert self.printed is not None, f"{where} shows what nothing has printed"
                assert alike(one.text, self.printed), (
                    f"{where} shows\n{one.text}\nbut this was printed:\n{self.printed}"
                )
                self.printed = None
            elif one.language == "python":
                self.python(one.text, where)
            elif one.language == "sh":
                self.shell(one, where)
            else:
                raise AssertionError(f"{where}: what is to be done with {one.language}?")
            count += one.language in ("sh", "python") and one.mark != "not run"
        return count

    def write(self, one: Snippet) -> None:
        path = Path(one.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text)

    def forget(self) -> None:
        """Modules that the page has written are read anew, as by a new process."""
        importlib.invalidate_caches()
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(self.home):
                del sys.modules[name]

    def python(self, text: str, where: str) -> None:
        self.forget()
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            exec(compile(text, where, "exec"), self.names)
        self.printed = heard.getvalue()
        self.transcript += self.printed

    def shell(self, one: Snippet, where: str) -> None:
        more = shlex.split(one.words) if one.mark == "tests add" else []
        wanted = int(one.words) if one.mark == "exit status" else 0
        done = [self.command(line, more) for line in commands(one.text)]
        self.printed = "".join(text for _, text in done)
        self.transcript += self.printed
        statuses = [status for status, _ in done]
        assert statuses == [0] * (len(done) - 1) + [wanted], f"{where}: {statuses}\n{self.printed}"

    def command(self, line: str, more: list[str]) -> tuple[int, str]:
        """Exit status and what was printed."""
        words = shlex.split(line, comments=True)
        if "tlkit" in words[:2]:
            set_for_it, (_, *words) = words[: words.index("tlkit")], words[words.index("tlkit") :]
            with mock.patch.dict(os.environ, dict(one.split("=", 1) for one in set_for_it)):
                return self.tlkit(words, more)
        if words[0] == "cd":
            os.chdir(words[1])
            return 0, ""
        if words[:2] == ["pip", "install"]:
            # Not the line itself: what is added would stand behind its comment.
            line = shlex.join(words)
            line += f" --quiet --no-deps --no-index --target {self.site_packages}"
        ran = subprocess.run(
            line, shell=True, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
        if words[:2] == ["pip", "install"]:
            site.addsitedir(str(self.site_packages))
        return ran.returncode, ran.stdout

    def tlkit(self, words: list[str], more: list[str]) -> tuple[int, str]:
        self.forget()
        result = CliRunner().invoke(main, [*words, *more])
        if words[0] == "sample" and result.exit_code == 0:
            thin(Path(words[-1]))
        return result.exit_code, result.output


def commands(text: str) -> list[str]:
    """The commands of a shell snippet: a line each, or more with && between."""
    lines = text.replace("\\\n", " ").splitlines()
    return [one for line in lines if line for one in line.split(" && ")]


def thin(folder: Path) -> None:
    """Keep a few images of each class."""
    for part, most in PER_CLASS.items():
        for one in (folder / part).iterdir():
            for path in sorted(one.iterdir())[most:]:
                path.unlink()
