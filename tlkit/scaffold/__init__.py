"""Scaffold: a plugin package to begin with, which installs and keeps the contract as it is.

In: a name. Out: a folder. What is written stands beside this file, as it will stand there.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tlkit.errors import OptionError
from tlkit.files import new_folder, write_text
from tlkit.plugins import find

NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")

TEMPLATES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "package.py.jinja": "{package}/__init__.py",
    "test_contract.py.jinja": "tests/test_contract.py",
    "gitignore.jinja": ".gitignore",
}
"""Beside this file -> where it is written."""


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """A plugin that was written."""

    folder: Path
    distribution: str
    """What pip calls it."""
    package: str
    """What Python imports."""
    backbone: str
    """What --backbone takes."""


def new_plugin(name: str, out: Path | None = None) -> Scaffold:
    """Write a plugin package called `name` with one small network; to `out`, by default ./NAME.

    Raises `OptionError` for a name that cannot be one or is taken, `RunFolderError` where something
    is in the way, and `DiskError`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    package = re.sub(r"[-.]+", "_", name).lower()
    backbone = package.removeprefix("tlkit_") or package
    _refuse(name, package, backbone)
    made = Scaffold(
        folder=Path(name) if out is None else out,
        distribution=name,
        package=package,
        backbone=backbone,
    )
    environment = Environment(
        loader=PackageLoader("tlkit.scaffold", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML, of a name that was checked
    )
    with new_folder(made.folder) as staged:
        for template, written in TEMPLATES.items():
            path = staged / written.format(package=package)
            path.parent.mkdir(exist_ok=True)
            text = environment.get_template(template).render(made=made, version=version("tlkit"))
            write_text(path, text)
    return made


def _refuse(name: str, package: str, backbone: str) -> None:
    """Raise `OptionError` for what pip, Python or tlkit would trip over later."""
    why = ""
    if not NAME.fullmatch(name):
        why = "letters, digits, hyphens, dots and underscores, a letter first and no mark last"
    elif keyword.iskeyword(package) or keyword.iskeyword(backbone):
        why = f"a name that Python does not keep for itself, as it does '{backbone}'"
    elif backbone in {one.name for one in find()}:
        why = f"a name of its own: a backbone '{backbone}' is installed"
    elif importlib.util.find_spec(package) is not None:
        why = f"a name of its own: there is a module '{package}' already"
    if why:
        raise OptionError(
            "a plugin cannot have that name",
            found=name[:80],
            expected=why,
            do="choose another, such as my-net",
        )
