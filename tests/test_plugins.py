"""Plugins: found in real metadata of distributions that are written into a folder on the path."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import tlkit
from tlkit.backbone import Backbone, Family
from tlkit.cli import main
from tlkit.errors import OptionError, PluginError, UnknownName
from tlkit.model.describe import describe
from tlkit.plugins import Broken, choose, exits_as_errors, find, load, names_in, natural
from tlkit.vetting import reasons_not_to_load

BACKBONE = """
from tlkit.backbone import Backbone
def net(name):
    return Backbone(name=name, about=__name__, weights=tuple, build=lambda weights: None)
"""
FAMILY = """
from tlkit.backbone import Family
from tlkit.errors import unknown
def member(name):
    if name == "boom":
        raise RuntimeError("the hub fell over")
    if name not in ("x", "y", "hf-hub:someone/x", "a/b"):
        raise unknown(["x", "y"], name, "backbone of fam")
    return net(name)
fam = Family(name="fam", about="", names=lambda: ["x", "y"], backbone=member)
"""


@pytest.fixture
def only(monkeypatch):
    """Limits what is looked at."""
    return lambda *names: monkeypatch.setenv("TLKIT_PLUGINS", ",".join(names))


def code_for(*names: str) -> str:
    return BACKBONE + "".join(f"{one} = net('{one}')\n" for one in names)


def named(name: str):
    (found,) = [one for one in find() if one.name == name]
    return found


def test_plugins_are_found_without_importing_one(install):
    module = install("zz-bomb", "raise SystemError('imported')", ["zz_net"], ["zz_family"])
    one = named("zz_net")
    assert (one.distribution, one.version, one.value) == ("zz-bomb", "1.0", f"{module}:zz_net")
    assert (one.is_family, named("zz_family").is_family) == (False, True)
    assert one.qualified == "zz-bomb:zz_net"
    assert one.module == module
    assert module not in sys.modules


def test_what_is_found_is_in_natural_order_with_the_families_behind(install, only):
    names = ["zz16", "zz101", "zz2", "zz16_bn"]
    install("zz-two", code_for(*names[2:]), names[2:], ["aa_family"])
    install("zz-one", code_for(*names[:2]), names[:2])
    only("zz-one", "zz-two")
    assert [one.name for one in find()] == ["zz2", "zz16", "zz16_bn", "zz101", "aa_family"]


@pytest.mark.parametrize(
    "ordered", [["vgg11", "vgg16", "vgg16_bn"], ["a", "a2b3", "a2b10", "a10b1"], ["2", "10", "b"]]
)
def test_numbers_in_names_count_as_numbers(ordered):
    mixed = ordered[1:] + ordered[:1]
    assert sorted(mixed, key=natural) == ordered


def test_a_chosen_backbone_comes_with_the_plugin_that_brought_it(install):
    install("zz-one", code_for("zz_net"), ["zz_net"])
    chosen = choose("zz_net")
    assert isinstance(chosen.backbone, Backbone)
    assert chosen.backbone.name == "zz_net"
    assert chosen.found == named("zz_net")
    assert choose("zz-one:zz_net").backbone is chosen.backbone


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_of_mine", "ModuleNotFoundError"),
        ("raise ValueError('spilt milk')", "ValueError: spilt milk"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("class Stop(BaseException): ...\nraise Stop('at once')", "Stop: at once"),
        ("class Stop(KeyboardInterrupt): ...\nraise Stop('not by a person')", "Stop: not by"),
        ("def (", "SyntaxError"),
        ("", "AttributeError"),
        ("zz_net = 'just a name'", "is a str, not a Backbone"),
        (BACKBONE + FAMILY + "zz_net = fam", "is a Family, not a Backbone"),
    ],
)
def test_a_broken_plugin_is_named_with_its_reason_and_stops_no_other(install, code, reason):
    module = install("zz-broken", code, ["zz_net"], version="3.2")
    install("zz-sound", code_for("zz_sound"), ["zz_sound"])
    broken = load(named("zz_net"))
    assert isinstance(broken, Broken)
    assert reason in broken.reason
    with pytest.raises(PluginError) as caught:
        choose("zz_net")
    for part in ("zz-broken", "3.2", f"{module}:zz_net", reason):
        assert part in caught.value.found
    assert "zz-broken" in caught.value.do
    assert isinstance(load(named("zz_sound")), Backbone)
    assert choose("zz_sound").backbone.name == "zz_sound"


def test_a_backbone_where_a_family_was_promised_is_broken(install):
    install("zz-broken", code_for("zz_family"), families=["zz_family"])
    broken = load(named("zz_family"))
    assert isinstance(broken, Broken)
    assert "not a Family" in broken.reason


def test_ctrl_c_during_an_import_is_not_a_broken_plugin(install):
    install("zz-slow", "raise KeyboardInterrupt", ["zz_net"])
    with pytest.raises(KeyboardInterrupt):
        load(named("zz_net"))


def test_a_name_that_two_bring_is_an_error_that_shows_names_that_work(install):
    for distribution in ("zz-one", "zz-two"):
        install(distribution, code_for("zz_net"), ["zz_net"])
    with pytest.raises(PluginError) as caught:
        choose("zz_net")
    for distribution in ("zz-one", "zz-two"):
        qualified = f"{distribution}:zz_net"
        assert qualified in caught.value.found
        assert f"--backbone {qualified}" in caught.value.do
        chosen = choose(qualified)
        assert chosen.found.distribution == distribution
        assert chosen.backbone.about == distribution.replace("-", "_")


def test_a_family_that_two_bring_is_qualified_before_its_name(install):
    for distribution in ("zz-one", "zz-two"):
        install(distribution, BACKBONE + FAMILY, families=["fam"])
    with pytest.raises(PluginError, match="--backbone zz-two:fam/x"):
        choose("fam/x")
    assert choose("zz-two:fam/x").backbone.about == "zz_two"


@pytest.mark.parametrize("member", ["x", "y", "a/b", "hf-hub:someone/x"])
def test_a_family_is_asked_for_what_stands_behind_the_slash(install, member):
    install("zz-hub", BACKBONE + FAMILY, families=["fam"])
    for name in (f"fam/{member}", f"zz-hub:fam/{member}"):
        chosen = choose(name)
        assert chosen.backbone.name == member
        assert chosen.found.name == "fam"
    assert isinstance(load(named("fam")), Family)


def test_a_family_says_itself_which_of_its_names_was_meant(install):
    install("zz-hub", BACKBONE + FAMILY, families=["fam"])
    with pytest.raises(UnknownName, match="backbone of fam"):
        choose("fam/zebra")


def test_a_family_that_falls_over_is_named(install):
    install("zz-hub", BACKBONE + FAMILY, families=["fam"])
    with pytest.raises(PluginError, match="RuntimeError: the hub fell over") as caught:
        choose("fam/boom")
    assert "zz-hub" in caught.value.found


def test_a_family_without_a_member_is_no_backbone(install):
    install("zz-hub", BACKBONE + FAMILY, families=["fam"])
    with pytest.raises(UnknownName, match="needs a name after the slash"):
        choose("fam")


@pytest.mark.parametrize("name", ["zz_ner", "ZZ_NET", "zz-one:zz_ner"])
def test_an_unknown_name_lists_what_is_installed_and_the_nearest(install, name):
    install("zz-one", code_for("zz_net"), ["zz_net"], ["fam"])
    with pytest.raises(UnknownName) as caught:
        choose(name)
    assert "zz_net" in caught.value.expected
    assert "fam/NAME" in caught.value.expected
    assert "'zz_net'" in caught.value.do


def test_a_name_is_looked_for_only_in_the_distribution_it_is_qualified_with(install):
    install("zz-one", code_for("zz_net"), ["zz_net"])
    install("zz-two", code_for("zz_other"), ["zz_other"])
    with pytest.raises(UnknownName):
        choose("zz-two:zz_net")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["zz-one"], {"zz-one"}),
        (["zz_one"], {"zz-one"}),
        ([" zz-one ", "", "zz_two"], {"zz-one", "zz-two"}),
        (["nothing-of-this-name"], set()),
        ([""], set()),
        (["zz_net"], set()),
    ],
)
def test_only_the_named_distributions_or_packages_are_looked_at(install, only, names, expected):
    for distribution in ("zz-one", "zz-two"):
        install(distribution, code_for("zz_net"), ["zz_net"])
    only(*names)
    assert {one.distribution for one in find()} == expected


def test_unset_every_plugin_is_looked_at(install, tiny_plugin):
    install("zz-one", code_for("zz_net"), ["zz_net"])
    found = {one.distribution for one in find()}
    assert {"zz-one", "tlkit-tiny", "tlkit"} <= found


def test_without_any_plugin_the_error_says_how_to_get_one(only):
    only("")
    with pytest.raises(PluginError, match="TLKIT_PLUGINS"):
        choose("vgg16")


def test_a_distribution_that_is_on_the_path_twice_is_found_once(install, tmp_path, monkeypatch):
    install("zz-one", code_for("zz_net"), ["zz_net"])
    link = tmp_path / "again"
    link.symlink_to(tmp_path / "site", target_is_directory=True)
    monkeypatch.syspath_prepend(str(link))
    importlib.invalidate_caches()
    assert choose("zz_net").found.distribution == "zz-one"


def test_choosing_can_be_done_among_given_plugins(install):
    install("zz-one", code_for("zz_net", "zz_other"), ["zz_net", "zz_other"])
    assert choose("zz_net", [named("zz_net")]).backbone.name == "zz_net"
    with pytest.raises(OptionError):
        choose("zz_other", [named("zz_net")])


def test_what_this_package_itself_brings_is_found_by_its_metadata_alone():
    names = {one.name for one in find() if one.distribution == "tlkit"}
    declared = Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8")
    assert names
    assert all(f"{name} = " in declared for name in names)


def test_a_plugin_whose_import_does_not_end_is_named(install, monkeypatch, caplog):
    monkeypatch.setattr("tlkit.plugins.LIMIT_S", 0.1)
    install("zz-sleeper", "import time\ntime.sleep(1)\n" + code_for("zz_slow"), ["zz_slow"])
    with caplog.at_level("WARNING", logger="tlkit"):
        assert isinstance(load(named("zz_slow")), Backbone)
    assert "zz_slow of zz-sleeper 1.0 is still being imported" in caplog.text


def test_what_a_plugin_prints_does_not_reach_standard_output(install, capsys):
    install("zz-talker", "print('buy now')\n" + code_for("zz_talks"), ["zz_talks"])
    assert isinstance(load(named("zz_talks")), Backbone)
    out, err = capsys.readouterr()
    assert out == ""
    assert "buy now" in err


def test_each_plugin_is_vetted_in_a_process_of_its_own(install, only):
    from tlkit.vetting import vet

    tiny = "from dataclasses import replace\nfrom tlkit.testing import TINY\n"
    bad = tiny + (
        "import os, time\nprint('hello')\n"
        "def crash(weights): os._exit(7)\n"
        "def leave(weights): raise SystemExit\n"
        "def hang(weights): time.sleep(60)\n"
        "zz_good = replace(TINY, name='zz_good')\n"
        "zz_crash = replace(TINY, name='zz_crash', build=crash)\n"
        "zz_hang = replace(TINY, name='zz_hang', build=hang)\n"
        "zz_leave = replace(TINY, name='zz_leave', build=leave)\n"
        "zz_none = replace(TINY, name='zz_none', weights=list)\n"
    )
    install("zz-mixed", bad, ["zz_good", "zz_crash", "zz_hang", "zz_leave", "zz_none", "zz_away"])
    good = vet("zz_good")
    assert (good.law, good.fault, good.printed) == ("", "", "hello")
    crash = vet("zz_crash")
    assert crash.law == "build_gives_a_network"
    assert "ended with 7" in crash.fault
    leave = vet("zz_leave")
    assert (leave.law, leave.fault) == (crash.law, "its process ended before the law did")
    none = vet("zz_none")
    assert none.law == "weight_sets_are_sound"
    assert "no end in" in vet("zz_hang", seconds=10).fault
    assert vet("zz_away").law == "import"


ENDING = """
import os, sys
from dataclasses import replace
from tlkit.backbone import Family
from tlkit.testing import TINY
class Stop(BaseException): ...
def leave(*_): sys.exit(0)
def stop(*_): raise Stop("enough")
def vanish(*_): os._exit(0)
def names():
    yield "x"
    sys.exit(0)
zz_leave = replace(TINY, name="zz_leave", build=leave)
zz_stop = replace(TINY, name="zz_stop", build=stop)
zz_weights = replace(TINY, name="zz_weights", weights=leave)
zz_vanish = replace(TINY, name="zz_vanish", build=vanish)
zz_family = Family(name="zz_family", about="", names=names, backbone=leave, on_disk=leave)
"""
NAMES = ["zz_leave", "zz_stop", "zz_weights", "zz_vanish"]


def test_a_plugin_that_leaves_while_it_builds_is_named(install, colours, tmp_path):
    install("zz-ending", ENDING, NAMES, ["zz_family"])
    for name in ("zz_leave", "zz_stop", "zz_weights", "zz_family/x"):
        with pytest.raises(PluginError, match="zz_") as caught:
            tlkit.fit(colours, backbone=name, out=tmp_path / "run")
        assert "Stop: enough" in caught.value.found or "SystemExit: 0" in caught.value.found
    assert not (tmp_path / "run").exists()
    for name in ("zz_leave", "zz_weights"):
        with pytest.raises(PluginError, match=name):
            tlkit.summary(name)
        with pytest.raises(PluginError, match=name):
            describe(choose(name).backbone)


def test_a_family_that_leaves_while_it_names_its_members_stops_no_listing(install):
    install("zz-ending", ENDING, families=["zz_family"])
    install("zz-hub", BACKBONE + FAMILY, families=["fam"])
    with pytest.raises(PluginError, match="SystemExit"):
        names_in(load(named("zz_family")), named("zz_family"))
    result = CliRunner().invoke(main, ["backbones", "--find", "x"])
    assert result.exit_code == 0
    assert "fam/x" in result.stdout
    assert "zz_family" in result.stderr
    assert "SystemExit: 0" in result.stderr


def test_ctrl_c_while_a_plugin_runs_stops():
    with pytest.raises(KeyboardInterrupt), exits_as_errors():
        raise KeyboardInterrupt


def run_script(site, *arguments, cwd):
    """The console script in a process of its own, where the plugins of a folder are installed."""
    code = "import sys; sys.argv[0] = 'tlkit'; from tlkit.cli import run; run()"
    path = os.pathsep.join(map(str, site))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("zz_leave", "SystemExit: 0"), ("zz_vanish", "os._exit(0) in zz_ending, line 9")],
)
def test_a_plugin_that_ends_the_process_never_makes_a_fit_look_done(
    install, colours, tmp_path, name, text
):
    install("zz-ending", ENDING, NAMES)
    ran = run_script([tmp_path / "site"], "fit", colours, "--backbone", name, cwd=tmp_path)
    assert ran.returncode == 2
    assert text in ran.stderr
    assert "zz_ending" in ran.stderr or "zz_leave" in ran.stderr
    assert not [one for one in (tmp_path / "runs").glob("*") if not one.name.startswith(".")]


def test_an_exit_from_anywhere_in_a_plugin_is_an_error_of_the_command(install, monkeypatch):
    module = install("zz-ending", ENDING, NAMES)
    leave = importlib.import_module(module).leave
    monkeypatch.setattr("tlkit.model.describe.describe", leave)
    result = CliRunner().invoke(main, ["backbones", "tiny"])
    assert result.exit_code == 2
    assert "zz-ending 1.0" in result.stderr
    assert "SystemExit: 0" in result.stderr


def test_an_exit_of_the_programs_own_is_left_alone():
    for arguments, status in ((["backbones", "--help"], 0), (["backbones", "--nothing"], 2)):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, "outside of tlkit" in result.output) == (status, False)


def test_plugins_that_end_the_process_are_listed_with_the_others(install, only):
    install("zz-vanishes", "import os\nos._exit(0)", ["zz_one"])
    install("zz-kills", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ["zz_two"])
    install("zz-interrupts", "raise KeyboardInterrupt", ["zz_three"])
    install("zz-sound", code_for("zz_sound"), ["zz_sound"])
    only("zz-vanishes", "zz-kills", "zz-interrupts", "zz-sound")
    result = CliRunner().invoke(main, ["plugins"])
    assert result.exit_code == 0
    states = {line.split()[0]: line for line in result.stdout.splitlines()[2:]}
    assert "zz_one: it ended the process with 0" in states["zz-vanishes"]
    assert "zz_two: it ended the process with -9" in states["zz-kills"]
    assert "KeyboardInterrupt" in states["zz-interrupts"]
    assert states["zz-sound"].split()[-1] == "loads"


def test_a_plugin_whose_import_does_not_end_is_listed(install):
    install("zz-sleeper", "import time\ntime.sleep(60)", ["zz_slow"])
    install("zz-sound", code_for("zz_sound"), ["zz_sound"])
    plugins = [named("zz_sound"), named("zz_slow"), named("zz_sound")]
    assert reasons_not_to_load(plugins, seconds=4) == ["", "its import did not end in 4 s", ""]
