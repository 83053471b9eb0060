"""Whatever can be chosen, called, raised or found stands in docs/: by the code's own tables."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from pages import DOCS, FENCE, MARKS, PAGES, commands, snippets

import tlkit
from tlkit import errors, options, runs
from tlkit.cli import main
from tlkit.data.audit import KINDS
from tlkit.data.sample import SAMPLES
from tlkit.data.transforms import PRESETS
from tlkit.export.formats import FORMATS
from tlkit.model.engine import ENGINES
from tlkit.model.heads import HEADS
from tlkit.predict.tta import POLICIES
from tlkit.testing import CHECKS
from tlkit.train.schedule import SCHEDULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Place:
    """A section of a page, and what must stand in it."""

    page: str
    section: str
    """Its heading; empty for the whole page."""
    names: tuple[str, ...]
    form: str = "`{}`"

    def missing(self, text: str) -> list[str]:
        """The names that do not stand there."""
        heading = f"\n## {self.section}\n" if self.section else "\n"
        part = text.partition(heading)[2]
        if self.section:
            part = part.partition("\n## ")[0]
        return [name for name in self.names if self.form.format(name) not in part]


def every_command(group, path="tlkit"):
    """(tlkit fit, the command) for all of them."""
    for name, one in group.commands.items():
        yield f"{path} {name}", one
        if isinstance(one, click.Group):
            yield from every_command(one, f"{path} {name}")


def flags_of(command):
    return tuple(
        flag
        for one in command.params
        if isinstance(one, click.Option)
        for flag in (*one.opts, *one.secondary_opts)
    )


ERRORS = tuple(
    name
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, errors.TlkitError)
)
VARIABLES = tuple(
    sorted(
        {
            name
            for path in (ROOT / "tlkit").rglob("*.py")
            for name in re.findall(r"\bTLKIT_[A-Z_]+\b", path.read_text())
        }
    )
)
BACKBONES = tuple(PROJECT["entry-points"]["tlkit.backbones"])
CHOICES = "reference/choices.md"
PLACES = [
    *(
        Place("reference/commands.md", path, flags_of(one))
        for path, one in every_command(main)
    ),
    Place(CHOICES, "Backbones", (*BACKBONES, "timm/NAME")),
    Place(CHOICES, "Heads", tuple(HEADS.own)),
    Place(CHOICES, "Where the head is put", (*options.ATTACH, *options.POOL)),
    Place(CHOICES, "What is trained", options.STRATEGIES),
    Place(CHOICES, "Augmentation presets", tuple(PRESETS.own)),
    Place(CHOICES, "Optimizers", options.OPTIMIZERS),
    Place(CHOICES, "Schedules", (*SCHEDULES, *options.MONITORS)),
    Place(CHOICES, "Engines", tuple(ENGINES)),
    Place(CHOICES, "Test-time views", tuple(POLICIES.own)),
    Place(CHOICES, "Findings", tuple(KINDS)),
    Place(CHOICES, "Export formats", tuple(FORMATS)),
    Place(CHOICES, "Samples", tuple(SAMPLES)),
    Place("reference/python.md", "", tuple(sorted({*tlkit.__all__} - {"__version__"})),
          "\n::: tlkit.{}\n"),
    Place("reference/contract.md", "The laws", tuple(CHECKS)),
    Place("reference/errors.md", "", ERRORS),
    Place("reference/environment.md", "Variables", VARIABLES),
    Place("reference/environment.md", "Extras", tuple(PROJECT["optional-dependencies"])),
    Place("reference/run-folder.md", "",
          tuple(one.replace("[0-9]*", "1") for one in sorted(runs.FILES))),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda one: f"{one.page} {one.section}")
def test_everything_has_its_place(place):
    assert place.names or place.section in dict(every_command(main))
    text = (DOCS / place.page).read_text()
    assert f"\n## {place.section}\n" in text or not place.section
    assert place.missing(text) == []


@pytest.mark.parametrize("place", PLACES, ids=lambda one: f"{one.page} {one.section}")
def test_whatever_is_taken_out_is_missed(place):
    text = (DOCS / place.page).read_text()
    for name in place.names:
        without = text.replace(place.form.format(name), "")
        assert name in place.missing(without)


def test_every_command_is_used_on_a_page():
    used = {
        tuple(re.sub(r"^(\w+=\S+ )*", "", line).split()[:3])
        for page in PAGES
        for one in snippets(page)
        if one.language == "sh"
        for line in commands(one.text)
    }
    for path, command in every_command(main):
        words = tuple(path.split())
        if not isinstance(command, click.Group):
            assert any(line[: len(words)] == words for line in used), f"no page uses {path}"


def test_every_option_that_is_used_is_there():
    known = {path: flags_of(command) for path, command in every_command(main)}
    for page in PAGES:
        for one in snippets(page):
            for line in commands(one.text) if one.language == "sh" else []:
                for path, flags in known.items():
                    if f"{path} " in line:
                        used = re.findall(r"(?<= )--[a-z][a-z0-9-]*", line.partition(" #")[0])
                        assert set(used) <= {*flags, "--help"}, f"{page.name}: {line}"


def test_few_snippets_are_not_run_and_each_says_why():
    every = [one for page in PAGES for one in snippets(page) if one.language in ("sh", "python")]
    left = [one for one in every if one.mark == "not run"]
    assert all(len(one.words) > 20 for one in left)
    assert len(left) <= len(every) / 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_fence_and_mark_is_one_that_is_understood(page):
    text = page.read_text()
    labelled = re.findall(r"^```\S.*$", text, re.MULTILINE)
    assert len(labelled) == len(list(FENCE.finditer(text)))
    assert not re.findall(r"^[ \t]+```", text, re.MULTILINE)
    marks = re.findall(r"^<!-- ([a-z ]+): .*-->$", text, re.MULTILINE)
    assert set(marks) <= set(MARKS)
    assert len(marks) == sum(bool(one.mark) for one in snippets(page))


def test_a_run_folder_holds_what_its_page_says():
    text = (DOCS / "reference" / "run-folder.md").read_text()
    there = set(re.findall(r"^\| `([a-z.-]+\.\w+)`", text, re.MULTILINE))
    assert there == {one for one in runs.FILES if "/" not in one}


def test_the_changelog_and_the_benchmarks_are_taken_in_whole():
    for page, source in (("changelog", "CHANGELOG.md"), ("benchmarks", "benchmarks/README.md")):
        assert (DOCS / f"{page}.md").read_text() == f'--8<-- "{source}"\n'
        assert Path(ROOT / source).is_file()
