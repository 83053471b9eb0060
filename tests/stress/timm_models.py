"""Timm models: the smallest of every kind of timm's networks, taken apart and put together again.

    python tests/stress/timm_models.py [PATTERN ...] [--max-millions 100] [--every]

A kind is a module of timm, a class in it, and what its classifier is made of; the smallest model of
each kind is tried, or with --every each model whose name matches. Held against the contract: the
shapes of features and vectors, and that the parts hold every tensor of the network and answer as it
does with --attach append and last; then `tlkit summary`. Weights are random: nothing is downloaded.
Prints a line for each model, what was skipped among them, and ends with 1 if any broke a law.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

os.environ["TLKIT_OFFLINE"] = "1"

import timm
import tlkit_timm
import torch
from torch import nn

import tlkit
import tlkit.weights
from tlkit.errors import PluginError, TlkitError
from tlkit.testing import CHECKS

LAWS = (
    "features_give_a_map_or_tokens",
    "neck_gives_vectors",
    "neck_holds_no_parameters",
    "classifier_keeps_its_word",
    "stages_hold_every_parameter_once",
    "parts_are_the_whole_network",
)


@dataclass(frozen=True)
class Model:
    name: str
    kind: tuple[str, ...]
    parameters: int


def models(names: Iterable[str]) -> tuple[list[Model], dict[str, str]]:
    """The models of these names, and why others cannot be built."""
    built, failed = [], {}
    for name in names:
        try:
            with torch.device("meta"):
                network = timm.create_model(name)
        except Exception as error:  # some make numbers that meta tensors do not have
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            continue
        parameters = sum(one.numel() for one in network.parameters())
        built.append(Model(name, kind_of(network), parameters))
    return built, failed


def kind_of(network: nn.Module) -> tuple[str, ...]:
    """What distinguishes a network here: where it is written, and how it ends."""
    get_classifier = getattr(network, "get_classifier", lambda: None)
    pooling = [str(getattr(network, name, "")) for name in ("global_pool", "num_prefix_tokens")]
    heads = [
        f"{re.sub(r'[0-9]+', 'N', name)}={type(module).__name__}"
        for name, module in network.named_children()
        if re.search("head|fc|classif|norm|pool", name)
    ]
    made = type(network)
    return (made.__module__, made.__name__, shape_of(get_classifier()), *pooling, *heads)


def shape_of(classifier: object) -> str:
    if isinstance(classifier, tuple | list | nn.ModuleList):
        return "(" + ", ".join(map(shape_of, classifier)) + ")"
    return type(classifier).__name__


def fault_of(name: str) -> str:
    """The first law that a model breaks, and how; nothing where it keeps them."""
    backbone = tlkit_timm.timm.backbone(name)
    for law in LAWS:
        try:
            CHECKS[law](backbone)
        except PluginError as error:
            return f"{law}: {error.about}: {error.found}"
    try:
        tlkit.summary(f"timm/{name}")
    except TlkitError as error:
        return f"summary: {error.about}: {error.found}"
    return ""


def ending_of(name: str) -> str:
    """In words, what stands behind the neck."""
    backbone = tlkit_timm.timm.backbone(name)
    with torch.device("meta"):
        network = backbone.build(tlkit.weights.unread(backbone.weights(), "none"))
    if network.classifier is not None:
        return f"classifier {type(network.classifier).__name__}"
    return f"no classifier: {network.why_no_classifier or 'none in timm'}"


def tried(name: str) -> tuple[str, str]:
    """How it went with a model: alike, refused or FAULT; and more words."""
    try:
        ending = ending_of(name)
    except TlkitError as error:
        return "refused", f"{error.about}: {error.found}"
    except Exception:  # meta tensors have no numbers
        ending = ""
    try:
        fault = fault_of(name)
    except TlkitError as error:
        return "refused", f"{error.about}: {error.found}"
    except Exception as error:  # whatever a network raises
        return "FAULT", f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ("FAULT", " ".join(fault.split())) if fault else ("alike", ending)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--max-millions", type=float, default=100.0, help="of parameters")
    parser.add_argument("--every", action="store_true", help="not the smallest of each kind alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    wanted = [
        name
        for name in timm.list_models()
        if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)
    ]
    built, failed = models(wanted)
    smallest: dict[object, Model] = {}
    for model in sorted(built, key=lambda model: model.parameters):
        smallest.setdefault(model.name if options.every else model.kind, model)
    counts = dict.fromkeys(("alike", "refused", "skipped", "FAULT"), 0)
    for model in sorted(smallest.values(), key=lambda model: model.name):
        if model.parameters > options.max_millions * 1e6:
            state, words = "skipped", f"{model.parameters / 1e6:.0f} million parameters"
        else:
            state, words = tried(model.name)
        counts[state] += 1
        print(f"{state:<8}{model.name}  {words}", flush=True)
    for name, reason in failed.items():
        counts["skipped"] += 1
        print(f"skipped {name}  not built without memory: {reason}", flush=True)
    print(json.dumps({"models": len(wanted), "kinds": len(smallest), **counts}))
    sys.exit(bool(counts["FAULT"]) or not counts["alike"])


if __name__ == "__main__":
    main()
