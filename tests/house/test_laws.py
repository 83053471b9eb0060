"""House law, executed: rooms are described, doors lead somewhere, the start is light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tlkit
from tlkit.options import (
    CompareOptions,
    CurveOptions,
    FeatureOptions,
    FitOptions,
    PredictOptions,
    ReportOptions,
    ScoreOptions,
    SearchOptions,
    ServeOptions,
    SummaryOptions,
    SweepOptions,
    declared,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("tlkit", "plugins") for path in (ROOT / folder).rglob("*.py"))
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_its_room_is(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text
    assert len(text.splitlines()[0]) > 20


def test_every_exported_name_is_there_and_nothing_else_is_promised():
    for name in tlkit.__all__:
        assert getattr(tlkit, name) is not None
    assert sorted(tlkit.__all__) == sorted([*tlkit._WHERE, "__version__"])
    assert set(tlkit.__all__) <= set(dir(tlkit))
    with pytest.raises(AttributeError, match="nothing"):
        tlkit.nothing  # noqa: B018


def modules_after(code):
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import tlkit",
        "import tlkit.cli",
        "import tlkit.plugins; tlkit.plugins.find()",
        "from click.testing import CliRunner; import tlkit.cli\n"
        "assert 'fit' in CliRunner().invoke(tlkit.cli.main, ['--help']).output\n"
        "assert '--freeze' in CliRunner().invoke(tlkit.cli.main, ['fit', '--help']).output",
    ],
)
def test_the_start_is_light(code):
    loaded = modules_after(code)
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "albumentations",
        "sklearn",
        "scipy",
        "matplotlib",
        "cv2",
        "numpy",
    }
    assert not heavy & loaded
    assert not [one for one in loaded if one.startswith("tlkit_")]


def test_choosing_a_backbone_imports_that_plugin_and_no_other():
    loaded = modules_after("import tlkit.plugins; tlkit.plugins.choose('vgg16')")
    assert "tlkit_vgg" in loaded
    assert not {"tlkit_resnet", "tlkit_timm", "tlkit_lite", "torch"} & loaded


def test_predicting_needs_nothing_of_training():
    code = (
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('tlkit.train'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "import tlkit.classifier, tlkit.predict.run, tlkit.report.evaluation"
    )
    assert not [one for one in modules_after(code) if one.startswith("tlkit.train")]


def test_the_version_is_the_newest_in_the_changelog():
    headings = [
        line.split()[1].strip("[]")
        for line in (ROOT / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    assert next(name for name in headings if name != "Unreleased") == tlkit.__version__


@pytest.mark.parametrize(
    "record",
    [
        CompareOptions,
        CurveOptions,
        FeatureOptions,
        FitOptions,
        PredictOptions,
        ReportOptions,
        ScoreOptions,
        SearchOptions,
        ServeOptions,
        SummaryOptions,
        SweepOptions,
    ],
)
def test_every_option_stands_in_the_readme(record):
    missing = [one.flag for one in declared(record) if f"`{one.flag}" not in README]
    assert missing == []


def test_the_help_names_every_row_of_the_tables():
    from tlkit.cli.export import FORMATS_HELP
    from tlkit.data.transforms import PRESETS
    from tlkit.export.formats import FORMATS
    from tlkit.model.heads import HEADS
    from tlkit.predict.tta import POLICIES
    from tlkit.train.schedule import SCHEDULES

    allowed = {one.name: one.allowed for one in [*declared(FitOptions), *declared(PredictOptions)]}
    assert allowed["head"] == ", ".join(HEADS.own)
    assert allowed["augment"] == f"auto, {', '.join(PRESETS.own)} or FILE"
    assert allowed["schedule"] == ", ".join(SCHEDULES)
    assert allowed["tta"] == ", ".join(POLICIES.own)
    assert tuple(FORMATS) == FORMATS_HELP


def test_every_command_stands_in_the_readme():
    from tlkit.cli import main

    assert [name for name in main.commands if f"tlkit {name}" not in README] == []


def test_every_distributed_plugin_is_built_and_under_the_import_law():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    there = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {one.removeprefix("plugins/") for one in packages} - {"tlkit"} == there
    assert set(project["tool"]["importlinter"]["root_packages"]) - {"tlkit"} == there


def test_no_error_leaves_the_package_that_does_not_say_what_to_do():
    """Only `TlkitError`s are raised on purpose; other exceptions mark what cannot happen."""
    from tlkit import errors

    allowed = {
        "AttributeError", "RuntimeError", "TypeError", "Unreadable", "KeyboardInterrupt",
        "OutputLost",  # where it is caught, cli/failure.py says what to do
        "PluginExit",  # becomes a PluginError that names the plugin
    }  # fmt: skip
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
                ours = hasattr(errors, name) and name[0].isupper()
                local = name.startswith("_") or name[0].islower() or name == "kind"
                # A stand-in for a system call fails as one does; who calls it says what to do.
                system = (path.name, name) == ("files.py", "OSError")
                assert ours or local or system or name in allowed, f"{path}: {name}"
