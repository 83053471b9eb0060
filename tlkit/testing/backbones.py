"""The laws of a backbone: what tlkit/backbone.py promises to the engine, and nothing else.

In: a `Backbone`. Out: nothing, or a `PluginError` that says which law of the contract is broken.
torch and pytest are imported inside functions.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import pickle
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from tlkit.backbone import Backbone, InputSpec, Network, Weights
from tlkit.errors import OptionError, PluginError, WeightsError, briefly, listing, pick
from tlkit.weights import obtain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlkit.model.assemble import Assembled, Cut

Check = Callable[[Backbone], None]

HEAVY = ("torch", "torchvision", "timm")


def check_backbone(backbone: Backbone) -> None:
    """Hold the backbone against every law. Raises `PluginError` for the first that it breaks."""
    for check in CHECKS.values():
        check(backbone)


def checks_for(*backbones: Backbone, expected: Mapping[str, str] | None = None) -> Any:
    """A pytest mark that gives a test its `check`: one law of one backbone, to be called.

    `expected` names laws that are known to be broken, each with its reason: they are expected to
    fail, and fail the test once they do not. Raises `UnknownName` for a law that there is not.
    """
    import pytest

    reasons = expected or {}
    for law in reasons:
        pick(CHECKS, law, "law of the contract")

    def marks(law: str) -> list[Any]:
        if law not in reasons:
            return []
        return [pytest.mark.xfail(reason=reasons[law], raises=PluginError, strict=True)]

    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(partial(check, backbone), id=f"{backbone.name}-{law}", marks=marks(law))
            for backbone in backbones
            for law, check in CHECKS.items()
        ],
    )


# --- the laws -----------------------------------------------------------------------------------


def weight_sets_are_sound(backbone: Backbone) -> None:
    """At least one weight set; names differ, and are none of the words that mean something else.

    A network that nobody publishes weights of has one set, named none (`backbone.untrained`).
    """
    names = [one.name for one in backbone.weights()]
    if names == ["none"]:
        return
    taken = sorted({"none", "file", "default"} & set(names))
    if not names or len(set(names)) < len(names) or taken or not all(names):
        raise _broken(
            backbone,
            "its weight sets are not sound",
            found=f"sets named {names}",
            expected="at least one, with names that differ and are not none, file or default",
            do="correct `weights`; without published weights it is `(untrained(input),)`",
        )


def import_is_cheap(backbone: Backbone) -> None:
    """Importing the plugin imports no torch: listing and choosing must stay quick."""
    module = _module(backbone)
    code = (
        "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "importlib.import_module(sys.argv[2]); "
        "print(json.dumps([one for one in sys.argv[3:] if one in sys.modules]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(sys.path), module, *HEAVY],
        capture_output=True,
        text=True,
        check=False,
    )
    # A plugin may print: what counts is the last line.
    loaded = ran.stdout.splitlines()[-1] if ran.returncode == 0 else ran.stderr.strip()[-500:]
    if loaded != "[]":
        raise _broken(
            backbone,
            f"importing {module} alone is not cheap, or fails",
            found=loaded,
            expected=f"none of {', '.join(HEAVY)} imported",
            do="import them inside `weights` and `build`",
        )


def build_gives_a_network(backbone: Backbone) -> None:
    """`build` gives a `Network` whose parts are modules, with the input of the weights it got."""
    from torch import nn

    weights = _none(backbone)
    network = _built(backbone)
    parts = [network.features, network.neck, network.classifier or nn.Identity()]
    if not all(isinstance(part, nn.Module) for part in parts) or network.input != weights.input:
        raise _broken(
            backbone,
            "`build` gives something else than a network",
            found=f"{[type(part).__name__ for part in parts]}, input {network.input}",
            expected=f"modules, and the input of the weights: {weights.input}",
            do="pass `weights.input` on in `Network`",
        )


def features_give_a_map_or_tokens(backbone: Backbone) -> None:
    """`features`: (2, 3, H, W) -> (2, F, h, w) or (2, T, F), one tensor."""
    shape = _shape(_found(backbone))
    if len(shape) not in (3, 4) or shape[0] != 2:
        raise _broken(
            backbone,
            "`features` gives neither a map nor tokens",
            found=str(shape),
            expected="(2, F, h, w) or (2, T, F)",
            do="leave pooling and flattening to `neck`",
        )


def neck_gives_vectors(backbone: Backbone) -> None:
    """`neck`: feature map -> (B, D)."""
    shape = _shape(_vectors(backbone))
    if len(shape) != 2 or shape[0] != 2:
        raise _broken(
            backbone,
            "`neck` gives no vectors",
            found=str(shape),
            expected="(2, D)",
            do="end the neck with nn.Flatten()",
        )


def neck_holds_no_parameters(backbone: Backbone) -> None:
    """Every parameter is in `features` or in `classifier`: the neck is exchanged by --pool."""
    held = [name for name, _ in _built(backbone).neck.named_parameters()]
    if held:
        raise _broken(
            backbone,
            "`neck` holds parameters",
            found=listing(held, most=8),
            expected="pooling and flattening only",
            do="move the layers to the end of `features`, or to `classifier`",
        )


def classifier_keeps_its_word(backbone: Backbone) -> None:
    """`classifier`: (B, D) -> (B, K), and K is what the default weight set says."""
    classifier = _settled(backbone).classifier
    if classifier is None:
        return
    shape = _shape(_apply(backbone, "classifier", classifier, _vectors(backbone)))
    said = backbone.weights()[0].classes
    if len(shape) != 2 or shape[0] != 2 or (said is not None and shape[1] != said):
        raise _broken(
            backbone,
            "`classifier` does not give what its weights say",
            found=str(shape),
            expected=f"(2, {said or 'K'})",
            do="correct `classifier`, or `classes` of the weight set",
        )


def parts_are_the_whole_network(backbone: Backbone) -> None:
    """The parts hold every tensor that the whole network's answer hangs on, and answer as it does.

    The whole network is what `weights.load_into` is given. A plugin that loads its weights in
    another way, or into what cannot be run, is not compared. Where `classifier` is None though the
    default weights have classes, `why_no_classifier` says why.
    """
    from torch import nn

    _must_say_why_no_classifier(backbone)
    whole = _whole_network(backbone)
    images = _normalised(backbone)
    answer = None if whole is None else _answer(whole, images)
    if whole is None or answer is None:
        return
    weights = replace(_none(backbone), name="file", state=whole.state_dict())
    network = _build_seeded(backbone, weights)
    for part in (network.features, network.neck, network.classifier):
        if part is not None:
            part.eval()
    vectors = _vectors_of(backbone, network, images)
    if network.classifier is None:
        if not network.why_no_classifier and _shape(answer) == _shape(vectors):
            _must_answer_alike(backbone, "its neck", vectors, answer)
        return
    lost = _lost_tensors(whole, network, images, answer)
    if lost:
        raise _broken(
            backbone,
            "its parts lack tensors of the network",
            found=listing(lost, most=8),
            expected="every tensor that changes the answer, in `features` or in `classifier`",
            do="let `classifier` be all that stands behind the neck, BatchNorm before the last "
            "layer too, or put it at the end of `features`",
        )
    for attach, model in _attached(network):
        logits = _apply(backbone, "classifier", nn.Sequential(model.body, model.head), vectors)
        _must_answer_alike(backbone, f"what --attach {attach} puts together", logits, answer)


def stages_hold_every_parameter_once(backbone: Backbone) -> None:
    """The stages together hold every parameter of `features` exactly once."""
    network = _built(backbone)
    held = Counter(
        id(parameter)
        for parts in network.stages.values()
        for part in parts
        for parameter in _parameters(part)
    )
    wanted = {id(one): name for name, one in network.features.named_parameters()}
    faults = [f"in no stage: {name}" for key, name in wanted.items() if not held[key]]
    faults += [f"in {held[key]} stages: {name}" for key, name in wanted.items() if held[key] > 1]
    strangers = len(set(held) - set(wanted))
    if strangers:
        faults.append(f"{strangers} parameters that are not in `features`")
    if faults:
        raise _broken(
            backbone,
            "its stages are no partition of `features`",
            found=listing(faults, most=8),
            expected="every parameter in exactly one stage",
            do="correct `stages`: freezing and learning rates go by them",
        )


def sequential_features_are_the_stages(backbone: Backbone) -> None:
    """Where `features` is an `nn.Sequential`, its children are the stages, in order."""
    from torch import nn

    network = _built(backbone)
    if not isinstance(network.features, nn.Sequential):
        return
    children = [[id(child)] for child in network.features.children()]
    if children != [[id(part) for part in parts] for parts in network.stages.values()]:
        raise _broken(
            backbone,
            "`features` is a Sequential of something else than its stages",
            found=f"children {[name for name, _ in network.features.named_children()]}",
            expected=f"one child for each stage, in order: {list(network.stages)}",
            do="nn.Sequential(OrderedDict(stages)), or wrap `features` in a module of your own",
        )


def eval_is_deterministic(backbone: Backbone) -> None:
    """In eval mode the same images give bitwise the same answer, and change no buffer."""
    network = _settled(backbone)
    buffers = _buffer_values(network)
    again = _vectors_of(backbone, network, _images(backbone, 2))
    kept = _equal_states(buffers, _buffer_values(network))
    if not kept or not _same(again, _vectors(backbone)):
        raise _broken(
            backbone,
            "in eval mode it does not repeat itself",
            found="another answer for the same images, or buffers that changed",
            expected="bitwise the same answer: what is frozen is computed once",
            do="switch off in eval whatever draws random numbers or keeps statistics",
        )


def images_do_not_see_each_other(backbone: Backbone) -> None:
    """In eval mode an image's answer is the same alone and in a batch, to rounding."""
    together = _vectors(backbone)
    alone = _vectors_of(backbone, _settled(backbone), _images(backbone, 2)[:1])
    if _shape(alone)[0] != 1 or not _close(alone, together[:1]):
        raise _broken(
            backbone,
            "an image's answer depends on the rest of its batch",
            found=f"(1, D) alone is {_shape(alone)}, or another than in a batch of 2",
            expected="the same vector, to rounding",
            do="keep batch statistics out of eval mode",
        )


def width_is_the_same_at_another_size(backbone: Backbone) -> None:
    """At another image size the network gives the same D, or refuses the size."""
    usual = _vectors(backbone)
    try:
        larger = _vectors_of(backbone, _settled(backbone), _images(backbone, 2, more_px=32))
    except Exception:  # it has its own words for it: a fixed size is no fault
        return
    if _shape(larger) != _shape(usual):
        raise _broken(
            backbone,
            "D depends on the size of the images",
            found=f"{_shape(usual)}, and {_shape(larger)} for images 32 px larger",
            expected="one D: a head is made for it",
            do="pool to a fixed size in `neck`",
        )


def train_mode_gives_the_same_shapes(backbone: Backbone) -> None:
    """In train mode each part gives one tensor of the shape that it has in eval mode."""
    import torch

    network = _settled(backbone)
    shapes = [_shape(_found(backbone)), _shape(_vectors(backbone))]
    # A copy, because a step in train mode changes BatchNorm's statistics.
    features, neck = copy.deepcopy((network.features, network.neck))
    with torch.random.fork_rng(devices=[]):
        inner = _apply(backbone, "features", features.train(), _images(backbone, 2))
        found = [_shape(inner), _shape(_apply(backbone, "neck", neck.train(), inner))]
    if found != shapes:
        raise _broken(
            backbone,
            "train mode changes what comes out",
            found=str(found),
            expected=str(shapes),
            do="switch off auxiliary classifiers and the like in `build`",
        )


def copies_stand_alone(backbone: Backbone) -> None:
    """A deepcopy answers as the original does, and goes on when the original changes."""
    import torch

    network = _settled(backbone)
    images = _images(backbone, 1)
    answer = _vectors_of(backbone, network, images)
    features, neck = copy.deepcopy((network.features, network.neck))
    twin = replace(network, features=features, neck=neck)
    same = _same(_vectors_of(backbone, twin, images), answer)
    with torch.no_grad():
        for parameter in features.parameters():
            parameter.zero_()
    apart = _same(_vectors_of(backbone, network, images), answer)
    followed = not _same(_vectors_of(backbone, twin, images), answer)
    if not (same and apart and followed):
        raise _broken(
            backbone,
            "a deepcopy of it is not whole",
            found=f"copy answers alike: {same}, original untouched by the copy: {apart}, "
            f"the copied neck uses the copied features: {followed}",
            expected="True three times",
            do="keep modules and parameters in places that deepcopy follows, not in closures",
        )


def seed_decides_random_weights(backbone: Backbone) -> None:
    """Built twice from one torch seed, the random weights are bitwise the same."""
    first, second = _built(backbone), _build_seeded(backbone)
    if not _equal_states(_parameter_values(first), _parameter_values(second)):
        raise _broken(
            backbone,
            "its random weights do not come from torch's seed",
            found="two builds after torch.manual_seed(0) that differ",
            expected="bitwise the same tensors",
            do="draw random numbers from torch's global generator only",
        )


def loading_is_strict(backbone: Backbone) -> None:
    """Weights that lack tensors, or hold strange ones, are refused with a `WeightsError`."""
    import torch

    for what, state in (
        ("no tensors at all", {}),
        ("a tensor it does not know", {"tlkit.no_such_tensor": torch.zeros(1)}),
    ):
        _refuses(backbone, replace(_none(backbone), name="file", state=state), what)


def weights_on_the_disk_load(backbone: Backbone) -> None:
    """Every weight set that needs no download loads, is finite, and is refused when incomplete."""
    sets = backbone.weights()
    for one in sets:
        if not one.source.on_disk():
            continue
        weights = obtain(sets, one.name)
        network = backbone.build(weights)
        tensors = {**_parameter_values(network), **_buffer_values(network)}
        sick = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
        if sick or (one.classes is None and network.classifier is not None):
            raise _broken(
                backbone,
                f"its weights '{one.name}' do not give what they say",
                found=f"not finite: {listing(sick, most=8)}" if sick else "a classifier",
                expected="finite tensors; no classifier where `classes` is None",
                do="correct the weight set, or set `classifier` to None for it",
            )
        state = dict(weights.state or {})
        state.popitem()
        _refuses(backbone, replace(weights, state=state), "all tensors but one")


def weight_sets_say_what_they_are(backbone: Backbone) -> None:
    """Every weight set has the whole of its preprocessing, and a licence if it is published."""
    faults = []
    for one in backbone.weights():
        given: object = one.input
        if not isinstance(given, InputSpec):
            faults.append(f"'{one.name}': its input is a {type(given).__name__}")
        if one.name != "none" and not one.licence.strip():
            faults.append(f"'{one.name}': no licence")
    if faults:
        raise _broken(
            backbone,
            "its weight sets do not say what they are",
            found=listing(faults, most=8),
            expected="an InputSpec, and the licence of what is published",
            do="complete `weights`: nobody else knows",
        )


def record_is_pickled(backbone: Backbone) -> None:
    """The record goes to another process, as programs need that start theirs anew (spawn)."""
    try:
        data = pickle.dumps(backbone)
    except Exception as error:  # pickle raises what the objects raise
        raise _not_pickled(backbone, briefly(error)) from error
    code = (
        "import json, pickle, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "print(pickle.load(sys.stdin.buffer).name)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(sys.path)],
        input=data, capture_output=True, check=False,
    )  # fmt: skip
    said = ran.stdout.decode(errors="replace").splitlines()[-1:]
    if said != [backbone.name]:
        last = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _not_pickled(backbone, "; ".join([*said, *last]) or "nothing")


def _not_pickled(backbone: Backbone, found: str) -> PluginError:
    return _broken(
        backbone,
        "its record cannot be pickled",
        found=found,
        expected="a record that another process can read",
        do="make `weights` and `build` functions of the module, or functools.partial of such, and "
        "no lambdas or functions inside functions",
    )


def building_asks_nobody(backbone: Backbone) -> None:
    """Listing the weight sets and building without weights open no connection."""
    # As a machine without a network answers.
    refused = OSError("no network")
    with (
        mock.patch.object(socket.socket, "connect", side_effect=refused),
        mock.patch.object(socket, "getaddrinfo", side_effect=refused),
    ):
        try:
            backbone.weights()
            _build_seeded(backbone)
        except Exception as error:  # whatever a library makes of it
            raise _broken(
                backbone,
                "building it without weights asks the network, or fails",
                found=briefly(error),
                expected="no connection: weights come through the weight sets' sources",
                do="build with pretrained=False, weights=None or the like, and load what is given",
            ) from error


def frozen_stays_frozen(backbone: Backbone) -> None:
    """A training step of a head leaves every tensor of frozen features bitwise as it was."""
    import torch

    cut = _with_head(backbone, _build_seeded(backbone))
    before = {name: one.detach().clone() for name, one in cut.frozen_tensors().items()}
    start = {name: one.detach().clone() for name, one in cut.trained_tensors().items()}
    cut.training(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = cut.model(_pixels(backbone, 2))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    torch.optim.SGD([one for one in cut.model.parameters() if one.requires_grad], lr=0.1).step()
    changed = [name for name, one in cut.frozen_tensors().items() if not _same(one, before[name])]
    learnt = any(not _same(one, start[name]) for name, one in cut.trained_tensors().items())
    if changed or not learnt:
        raise _broken(
            backbone,
            "frozen, it does not stay as it is",
            found=f"after one step other numbers in {listing(changed, most=8)}"
            if changed
            else "a head that did not learn",
            expected="bitwise the same tensors, and gradients that reach the head",
            do="let nothing change but parameters that are trained, and detach no output",
        )


def heads_are_saved_and_loaded(backbone: Backbone) -> None:
    """What a head file holds, put on the backbone built once more, answers bitwise the same."""
    from safetensors.torch import load, save

    from tlkit.artifact import tensors_of

    first, second = (_with_head(backbone, _build_seeded(backbone)) for _ in range(2))
    second.put(load(save(tensors_of(first))))
    strangers = [
        name
        for name, one in second.frozen_tensors().items()
        if not _same(one, first.frozen_tensors()[name])
    ]
    images = _pixels(backbone, 2)
    if strangers or not _same(_logits(backbone, first, images), _logits(backbone, second, images)):
        raise _broken(
            backbone,
            "a head that was saved answers differently when it is loaded",
            found=f"built again, other numbers in {listing(strangers, most=8)}"
            if strangers
            else "other logits for the same images",
            expected="bitwise the same: everything is in the file or in the weights",
            do="draw nothing in `build` but from torch's generator, and register what must be kept",
        )


def dense_equals_plain(backbone: Backbone) -> None:
    """Where a map is flattened, the windows of an image of the crop's size score as it does.

    Kept by networks that average the map, whose dense pass is the plain one, and by those of which
    there is none: tokens, or a pooling of another kind.
    """
    import torch

    from tlkit.predict.dense import window_of

    cut = _with_head(backbone, _settled(backbone))
    try:
        window = window_of(cut.model, backbone.name)
    except OptionError:
        return
    if window is None:
        return
    images = _pixels(backbone, 2)
    plain = _logits(backbone, cut, images)
    with torch.no_grad():
        found = cut.model.features(cut.model.normalise(images))
        vectors = torch.cat(list(window.slide(found)), dim=1)
        dense = cut.model.head(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2]).mean(dim=1)
    if not _close(dense, plain):
        raise _broken(
            backbone,
            "its dense evaluation is not its plain one",
            found=f"logits that differ by {float((dense - plain).abs().max()):.3g}",
            expected="the same for an image of the crop's own size",
            do="let `neck` flatten the map or take its mean, and nothing besides",
        )


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        weight_sets_are_sound,
        import_is_cheap,
        build_gives_a_network,
        features_give_a_map_or_tokens,
        neck_gives_vectors,
        neck_holds_no_parameters,
        classifier_keeps_its_word,
        parts_are_the_whole_network,
        stages_hold_every_parameter_once,
        sequential_features_are_the_stages,
        eval_is_deterministic,
        images_do_not_see_each_other,
        width_is_the_same_at_another_size,
        train_mode_gives_the_same_shapes,
        copies_stand_alone,
        seed_decides_random_weights,
        loading_is_strict,
        weights_on_the_disk_load,
        weight_sets_say_what_they_are,
        record_is_pickled,
        building_asks_nobody,
        frozen_stays_frozen,
        heads_are_saved_and_loaded,
        dense_equals_plain,
    )
}
"""Every law of the contract, by name."""


def _broken(backbone: Backbone, about: str, *, found: str, expected: str, do: str) -> PluginError:
    return PluginError(
        f"the backbone '{backbone.name}': {about}", found=found, expected=expected, do=do
    )


def _refuses(backbone: Backbone, weights: Weights, what: str) -> None:
    try:
        backbone.build(weights)
    except WeightsError:
        return
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    else:
        found = "a network"
    raise _broken(
        backbone,
        f"given weights that hold {what}, it does not refuse them",
        found=found,
        expected="a WeightsError",
        do="load with weights.load_into(network), and nothing more lenient",
    )


def _module(backbone: Backbone) -> str:
    """The module that defines the plugin."""
    maker: Any = backbone.build
    while isinstance(maker, partial):
        maker = maker.func
    return str(maker.__module__)


def _none(backbone: Backbone) -> Weights:
    return obtain(backbone.weights(), "none")


# One network is kept, because the laws are asked backbone by backbone and VGG takes seconds.
@lru_cache(maxsize=1)
def _built(backbone: Backbone) -> Network:
    """The network with random weights, for laws about how it is put together."""
    return _build_seeded(backbone)


@lru_cache(maxsize=1)
def _settled(backbone: Backbone) -> Network:
    """The same network, fit to be run, in eval mode. No law may change it."""
    network = _built(backbone)
    _settle(backbone, network)
    for part in (network.features, network.neck, network.classifier):
        if part is not None:
            part.eval()
    return network


@lru_cache(maxsize=1)
def _found(backbone: Backbone) -> Any:
    """What `features` gives for two images."""
    return _apply(backbone, "features", _settled(backbone).features, _images(backbone, 2))


@lru_cache(maxsize=1)
def _vectors(backbone: Backbone) -> Any:
    """What `neck` gives for two images."""
    return _apply(backbone, "neck", _settled(backbone).neck, _found(backbone))


def _build_seeded(backbone: Backbone, weights: Weights | None = None) -> Network:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return backbone.build(weights or _none(backbone))


@dataclass(frozen=True, kw_only=True)
class _Watched(Weights):
    """Weights that keep a copy of the network that they are loaded into."""

    networks: list[nn.Module]

    def load_into(self, network: nn.Module, *, leave: Sequence[str] = ()) -> None:
        self.networks.append(copy.deepcopy(network))
        super().load_into(network, leave=leave)


def _whole_network(backbone: Backbone) -> nn.Module | None:
    """The network before it is taken apart, in eval mode, with numbers that all matter.

    None where `build` does not load through `load_into`, or loads into several networks.
    """
    import torch

    networks: list[nn.Module] = []
    none = {**vars(_none(backbone)), "networks": networks}
    _build_seeded(backbone, _Watched(**none))
    if not networks:
        # Some load nothing where there is nothing to load, and refuse weights without tensors.
        with contextlib.suppress(WeightsError):
            _build_seeded(backbone, _Watched(**{**none, "name": "file", "state": {}}))
        for one in networks:
            _fill(one)
    if len(networks) != 1:
        return None
    (whole,) = networks
    with torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        _settle_norms(whole, _normalised(backbone))
    _stir(whole.eval())
    return whole


def _answer(whole: nn.Module, images: Tensor) -> Any:
    """(2, K); None where the network cannot be run as a whole, or gives something else."""
    import torch

    try:
        with torch.no_grad():
            answer = whole(images)
    except Exception:  # it may be a mere container of the parts
        return None
    return answer if len(_shape(answer)) == 2 and bool(answer.isfinite().all()) else None


def _normalised(backbone: Backbone) -> Any:
    """(2, channels, H, W): noise as the network sees it when it is put together."""
    from tlkit.model.assemble import Normalise

    return Normalise(_none(backbone).input)(_pixels(backbone, 2))


def _fill(network: nn.Module) -> None:
    """Draw every number: a network that waits for its weights may not have been initialised."""
    import torch

    seed = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim > 1 and tensor.is_floating_point():
                spread = (2 / max(1, tensor[0].numel())) ** 0.5
                tensor.copy_(spread * torch.randn(tensor.shape, generator=seed))
            else:
                tensor.fill_(1)


def _stir(whole: nn.Module) -> None:
    """Move what starts as zeros or ones, norms for example: without it, it would not be missed."""
    import torch

    seed = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in whole.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.rand(tensor.shape, generator=seed)
            if name.endswith("running_var"):
                tensor.mul_(0.5 + noise)
            elif tensor.ndim < 2 or bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(0.2 * noise - 0.1)


def _lost_tensors(whole: nn.Module, network: Network, images: Tensor, answer: Any) -> list[str]:
    """Names of tensors that no part holds, and without which the network answers otherwise."""
    parts = (network.features, network.neck, network.classifier)
    held = {
        _numbers(tensor)
        for part in parts
        if part is not None
        for tensor in part.state_dict().values()
    }
    missing = [name for name, one in whole.state_dict().items() if _numbers(one) not in held]
    return [name for name in missing if _matters(whole, name, images, answer)]


def _numbers(tensor: Tensor) -> tuple[int, bytes]:
    """What tells tensors apart, whatever their shapes."""
    import torch

    plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return tensor.numel(), hashlib.sha256(plain.numpy().data if len(plain) else b"").digest()


def _matters(whole: nn.Module, name: str, images: Tensor, answer: Any) -> bool:
    """Whether the network answers otherwise when a tensor is another."""
    import torch

    tensor = whole.state_dict()[name]
    before = tensor.clone()
    with torch.no_grad():
        tensor.copy_(before + 1)
        changed = whole(images)
        tensor.copy_(before)
    return not _same(changed, answer)


def _attached(network: Network) -> Iterator[tuple[str, Assembled]]:
    """The network with its own classifier put back, in each way to attach that it can be had."""
    from torch import nn

    from tlkit.model.assemble import assemble

    classifier = network.classifier
    last = classifier[-1] if isinstance(classifier, nn.Sequential) else classifier
    yield "append", assemble(network, lambda _: nn.Identity(), attach="append", pool="keep").eval()
    with contextlib.suppress(OptionError):
        model = assemble(network, lambda _: last or nn.Identity(), attach="last", pool="keep")
        yield "last", model.eval()


def _must_answer_alike(backbone: Backbone, what: str, found: Any, expected: Any) -> None:
    """Refuse numbers that differ by more than a thousandth of what tells the two images apart."""
    off = float("inf")
    if _shape(found) == _shape(expected):
        apart = float((expected - expected.mean(dim=0)).abs().max())
        scale = max(apart, 1e-3 * float(expected.abs().max()))
        off = float((found - expected).abs().max()) / scale
    if not off < 1e-3:
        raise _broken(
            backbone,
            f"{what} does not answer as the whole network does",
            found=f"{_shape(found)}, off by {off:.2g} of what tells two images apart",
            expected=f"the answer of what `load_into` was given, {_shape(expected)}",
            do="let features, neck and classifier do all that the network's own `forward` does",
        )


def _must_say_why_no_classifier(backbone: Backbone) -> None:
    network, classes = _built(backbone), backbone.weights()[0].classes
    if network.classifier is None and classes is not None and not network.why_no_classifier:
        raise _broken(
            backbone,
            "its parts lack the classifier",
            found=f"`classifier` is None, and the default weights have {classes} classes",
            expected="the classifier, or why there is none in `why_no_classifier`",
            do="complete `Network`",
        )


def _settle(backbone: Backbone, network: Network) -> None:
    """Give BatchNorm the statistics that it would have after some training.

    With its initial ones the numbers of a deep random network vanish or overflow: laws about them
    would say nothing, and processors are many times slower on numbers near zero.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        _apply(backbone, "features", partial(_settle_norms, network.features), _images(backbone, 2))


def _settle_norms(part: nn.Module, images: Tensor) -> None:
    """Run a part once in train mode; its BatchNorms take their statistics from these images."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [one for one in part.modules() if isinstance(one, _BatchNorm)]
    if not norms:
        return
    momenta = [one.momentum for one in norms]
    for one in norms:
        one.momentum = 1.0
    part.train()(images)
    for one, momentum in zip(norms, momenta, strict=True):
        one.momentum = momentum


def _images(backbone: Backbone, count: int, more_px: int = 0) -> Tensor:
    """(B, 3, H, W), normalised: noise, the same every time."""
    import torch

    spec = _none(backbone).input
    height, width = (side + more_px for side in spec.size)
    seed = torch.Generator().manual_seed(1)
    return torch.randn(count, spec.channels, height, width, generator=seed)


def _pixels(backbone: Backbone, count: int) -> Tensor:
    """(B, channels, H, W) uint8: noise, the same every time."""
    import torch

    spec = _none(backbone).input
    seed = torch.Generator().manual_seed(2)
    shape = (count, spec.channels, *spec.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seed)


def _with_head(backbone: Backbone, network: Network) -> Cut:
    """A linear head for three classes in place of the classifier, the features frozen."""
    import torch

    from tlkit.model.assemble import assemble, cut
    from tlkit.model.heads import make_head

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = assemble(
            network,
            lambda width: make_head("linear", width, 3, 0, 0.0),
            attach="replace",
            pool="keep",
        )
    return cut(model, "features")


def _logits(backbone: Backbone, cut: Cut, images: Tensor) -> Any:
    cut.training(False)
    return _apply(backbone, "features", cut.model, images)


def _vectors_of(backbone: Backbone, network: Network, images: Tensor) -> Any:
    found = _apply(backbone, "features", network.features, images)
    return _apply(backbone, "neck", network.neck, found)


def _apply(backbone: Backbone, name: str, part: Callable[[Any], Any], given: Any) -> Any:
    """What the part gives, without gradients."""
    import torch

    try:
        with torch.no_grad():
            return part(given)
    except Exception as error:
        raise _broken(
            backbone,
            f"`{name}` fails",
            found=f"{briefly(error)}, given {_shape(given) or given}",
            expected="an answer to what the parts before it give",
            do="try features, neck and classifier one after the other",
        ) from error


def _shape(value: object) -> tuple[int, ...]:
    """A tensor's shape; () for anything else."""
    return tuple(getattr(value, "shape", ()))


def _same(one: Tensor, other: Tensor) -> bool:
    import torch

    return torch.equal(one, other)


def _close(one: Tensor, other: Tensor) -> bool:
    """To rounding, on the scale of the largest number."""
    import torch

    scale = float(other.abs().max())
    return torch.allclose(one, other, rtol=0.0, atol=1e-3 * scale)


def _parameters(part: nn.Module | nn.Parameter) -> Iterator[nn.Parameter]:
    from torch import nn

    return iter([part]) if isinstance(part, nn.Parameter) else part.parameters()


def _parameter_values(network: Network) -> dict[str, Tensor]:
    parts = {"features": network.features, "classifier": network.classifier}
    return {
        f"{name}.{key}": value.detach()
        for name, part in parts.items()
        if part is not None
        for key, value in part.named_parameters()
    }


def _buffer_values(network: Network) -> dict[str, Tensor]:
    """Copies: a later change must show."""
    parts = (network.features, network.neck)
    return {
        f"{number}.{key}": value.detach().clone()
        for number, part in enumerate(parts)
        for key, value in part.named_buffers()
    }


def _equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
