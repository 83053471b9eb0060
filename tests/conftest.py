"""What every test may rely on: no network, a folder of its own, an installed tiny backbone."""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import settings

from tlkit.testing import make_folder

# No deadline: a slow machine is no defect. No database: a failure is printed, to be repeated.
settings.register_profile("tlkit", deadline=None, database=None, print_blob=True)
settings.load_profile("tlkit")


@pytest.fixture(scope="session", autouse=True)
def tiny_plugin(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    tiny.install(site)
    yield site
    sys.path.remove(str(site))


@pytest.fixture(scope="session", autouse=True)
def _plain_processor():
    """The processor has no units for bf16, whatever it has: what `auto` chooses is the same
    everywhere, and answers are as exact as those that they are held against.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlkit.model.device._has_bf16_units", lambda device: False)
        yield


@pytest.fixture(scope="module")
def _one_thread():
    """Let networks run in one thread: of small ones, a second would mostly wait for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def loopback():
    """A test that asks for this may connect to servers on this machine."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, request):
    """A test that opens a connection fails at once, here as on a machine with a network."""
    allowed = ("127.0.0.1", "::1") if "loopback" in request.fixturenames else ()

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in allowed:
            raise OSError(f"the tests have no network: {address}")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path, tmp_path_factory):
    """Runs land in the test's own folder, and nothing is found that another test has computed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """Three classes of eight 64 x 48 images: colours with noise."""
    return make_folder(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writes a distribution: its module, and its entry points by name."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("TLKIT_PLUGINS", raising=False)
    modules = []

    def write(distribution, code, backbones=(), families=(), version="1.0", **groups):
        module = distribution.replace("-", "_")
        modules.append(module)
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = []
        for group, names in {"backbones": backbones, "families": families, **groups}.items():
            lines += [f"[tlkit.{group}]", *(f"{one} = {module}:{one}" for one in names)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()
        return module

    yield write
    for one in modules:
        sys.modules.pop(one, None)
