"""What the plugins' tests share: no network, caches in a temporary folder, parts put together."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def offline(monkeypatch):
    """No name resolves and no address answers: what a machine without a network sees, at once."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def torch_home(monkeypatch, tmp_path):
    """torch.hub's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def settle():
    """Gives a random network's BatchNorm the statistics of noise, and sets it to eval mode.

    With the initial ones a deep network's numbers vanish: every answer would be the bias.
    """
    import torch
    from torch import nn

    def run(network, side=128):
        norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
        for one in norms:
            one.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.randn(2, 3, side, side))
        for one in norms:
            one.momentum = 0.1
        return network.eval()

    return run


@pytest.fixture
def logits():
    """Network, (B, 3, H, W) -> (B, K): the parts joined, in eval mode."""
    import torch

    def run(network, images):
        parts = (network.features, network.neck, network.classifier)
        with torch.inference_mode():
            for part in parts:
                images = part.eval()(images)
        return images

    return run
